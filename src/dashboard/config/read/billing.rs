//! The section `[billing]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Given, Reader, Source};
use crate::dashboard::billing::invoices::MANUAL;
use crate::dashboard::billing::providers::PLACEHOLDERS;
use crate::dashboard::config::{BillingSettings, ProviderSettings};
use crate::dashboard::master::KeySource;

const DAY_S: i64 = 86_400;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Billing {
    provider: Given<String>,
    payment_term_days: Given<i64>,
    grace_days: Given<i64>,
    instructions: Option<String>,
    #[serde(default)]
    providers: BTreeMap<Spanned<String>, Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    checkout_url: Spanned<String>,
    webhook_secrets: Spanned<Vec<Spanned<Source>>>,
}

impl Reader<'_> {
    pub(super) fn billing(&mut self, given: Billing) -> BillingSettings {
        let default = BillingSettings::default();
        let mut days = |key: &str, value, default_s: i64| {
            DAY_S * self.number(key, value, default_s / DAY_S, 0..=365, "days")
        };
        let payment_term_s =
            days("billing.payment_term_days", given.payment_term_days, default.payment_term_s);
        let grace_s = days("billing.grace_days", given.grace_days, default.grace_s);
        let mut providers = BTreeMap::new();
        for (name, provider) in given.providers {
            if let Some(settings) = self.provider(&name, provider) {
                providers.insert(name.into_inner(), settings);
            }
        }
        let provider = given.provider.filter(|name| name.get_ref() != MANUAL);
        if let Some(name) = &provider
            && !providers.contains_key(name.get_ref())
        {
            let message = format!(
                "billing.provider = {:?}, but it must be {MANUAL:?} or the name of a section [billing.providers.…]",
                name.get_ref()
            );
            self.problem(name.span().start, message);
        }
        BillingSettings {
            provider: provider.map(Spanned::into_inner),
            payment_term_s,
            grace_s,
            instructions: given.instructions.unwrap_or(default.instructions),
            providers,
        }
    }

    fn provider(&mut self, name: &Spanned<String>, given: Provider) -> Option<ProviderSettings> {
        let is_name = |name: &str| {
            (1..=40).contains(&name.len())
                && name != MANUAL
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if !is_name(name.get_ref()) {
            let message = format!(
                "the payment provider {:?} must be called 1 to 40 of a-z 0-9 and hyphens, and not {MANUAL}",
                name.get_ref()
            );
            self.problem(name.span().start, message);
            return None;
        }
        let key = format!("billing.providers.{}", name.get_ref());
        let url = given.checkout_url.get_ref();
        let mut rest = url.clone();
        for placeholder in PLACEHOLDERS {
            rest = rest.replace(placeholder, "");
        }
        let is_url = url.starts_with("https://") || url.starts_with("http://");
        if !is_url || !url.contains(PLACEHOLDERS[0]) || rest.contains(['{', '}', ' ']) {
            let message = format!(
                "{key}.checkout_url = {url:?}, but it must be a URL with {} in it, and perhaps {}",
                PLACEHOLDERS[0],
                PLACEHOLDERS[1..].join(" ")
            );
            self.problem(given.checkout_url.span().start, message);
            return None;
        }
        let offset = given.webhook_secrets.span().start;
        let sources = given.webhook_secrets.into_inner().into_iter();
        let secrets: Option<Vec<_>> = sources
            .map(|source| match source.into_inner() {
                Source { file: Some(file), env: None } => Some(KeySource::File(file.into())),
                Source { file: None, env: Some(variable) } => Some(KeySource::Environment(variable)),
                _ => None,
            })
            .collect();
        let Some(webhook_secrets) = secrets.filter(|secrets| !secrets.is_empty()) else {
            let message = format!(
                "{key}.webhook_secrets must say where each secret is: [{{ file = \"PATH\" }}, {{ env = \"VARIABLE\" }}]"
            );
            self.problem(offset, message);
            return None;
        };
        Some(ProviderSettings { checkout_url: given.checkout_url.into_inner(), webhook_secrets })
    }
}
