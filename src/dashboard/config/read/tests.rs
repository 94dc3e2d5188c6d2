//! What is refused in a configuration, and how it is said.

use super::*;
use crate::dashboard::config::BillingSettings;

const MINIMAL: &str = "[dashboard]\nissuer = \"https://auth.example.com\"\noperator_email = \"ops@example.com\"\n\
                       [database]\nhome = \"sqlite:/var/lib/a.db\"\n[master_keys]\n1 = { file = \"k\" }\n";

fn problems(text: &str) -> Vec<String> {
    parse(text, "f").unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn problems_with(text: &str) -> Vec<String> {
    problems(&format!("{MINIMAL}{text}"))
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse(MINIMAL, "f").unwrap();
    assert_eq!(config.tokens, TokenSettings::default());
    assert_eq!(config.keys, KeySettings::default());
    assert_eq!(config.http, HttpSettings::default());
    assert_eq!(config.billing, BillingSettings::default());
    assert_eq!(config.regions.len(), 6);
    assert_eq!(config.regions[&LicenseRegion::EuWest1].db_code, "shard-01-eu-west-1");
}

#[test]
fn the_documented_file_holds_every_default() {
    let text = include_str!("../../../../tuning/dashboard.toml");
    let config = parse(text, "f").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.tokens, TokenSettings::default());
    assert_eq!(config.keys, KeySettings::default());
    assert_eq!(config.http, HttpSettings::default());
    assert_eq!(config.billing, BillingSettings::default());
    assert_eq!(config.listen.port(), 8090);
}

#[test]
fn the_documented_file_names_every_key() {
    let documented = include_str!("../../../../tuning/dashboard.toml");
    let sections = [
        "dashboard",
        "database",
        "regions.aws-eu-west-1",
        "keys",
        "tokens",
        "http",
        "billing",
        "billing.providers.x",
        "mail",
        "log",
        "tls",
    ];
    for section in sections {
        // What serde says of an unknown key lists the known ones.
        let text = format!("[{section}]\nno_such_key = 1\n");
        let error = toml::from_str::<File>(&text).err().unwrap().to_string();
        let known: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(!known.is_empty(), "{error}");
        for key in known {
            let forms = [format!("{key} = "), format!("[{section}.{key}.")];
            let is_there =
                |line: &str| forms.iter().any(|form| line.trim_start_matches('#').starts_with(form));
            assert!(documented.lines().any(is_there), "{section}.{key} is not documented");
        }
    }
}

#[test]
fn mail_goes_to_one_place() {
    for (text, target) in [
        (
            "smtp_url = { env = \"SMTP\" }\nca_file = \"ca.pem\"",
            MailTarget::Smtp {
                url: KeySource::Environment("SMTP".to_owned()),
                ca_file: Some("ca.pem".into()),
            },
        ),
        ("directory = \"mail\"", MailTarget::Directory("mail".into())),
    ] {
        let config = parse(&format!("{MINIMAL}[mail]\nfrom = \"a@b\"\n{text}\n"), "f").unwrap();
        assert_eq!(config.mail, Some(MailSettings { from: "a@b".to_owned(), target }));
    }
    for text in [
        "",
        "smtp_url = {}",
        "directory = \"mail\"\nsmtp_url = { env = \"SMTP\" }",
        "directory = \"mail\"\nca_file = \"ca.pem\"",
    ] {
        let said = problems_with(&format!("[mail]\nfrom = \"a@b\"\n{text}\n"));
        assert!(said[0].contains("[mail] must say where letters go"), "{said:?}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_place_and_nearest_key() {
    assert_eq!(
        problems_with("[tokens]\nacces_token_s = 5\n"),
        ["f:9:1: unknown key `acces_token_s`: did you mean `access_token_s`?"]
    );
}

#[test]
fn every_wrong_value_is_reported_with_its_place_and_range() {
    assert_eq!(
        problems_with(
            "[tokens]\naccess_token_s = 5\n[http]\ntrusted_proxies = [\"ten\"]\n[log]\nlevel = \"loud\"\n"
        ),
        [
            "f:9:18: tokens.access_token_s = 5, but it must be a whole number from 60 to 86400 seconds",
            "f:11:20: http.trusted_proxies = \"ten\", but it must be networks such as \"10.0.0.0/8\" (`ten` is not an \
             IP address)",
            "f:13:9: log.level = \"loud\", but it must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        ]
    );
}

#[test]
fn a_key_may_not_sign_before_it_is_known() {
    let found = problems_with("[keys]\njwks_max_age_s = 600\npublish_before_s = 300\n");
    assert!(
        found[0].starts_with("f:10:20: keys.publish_before_s = 300, keys.jwks_max_age_s = 600"),
        "{found:?}"
    );
}

#[test]
fn an_issuer_has_no_path() {
    let found = problems(&MINIMAL.replace("example.com\"\nop", "example.com/\"\nop"));
    assert!(found[0].starts_with("f:2:10: dashboard.issuer"), "{found:?}");
}

#[test]
fn master_keys_and_regions_say_what_they_are() {
    let found = problems_with("[regions.mars-1]\ndb_code = \"x\"\n");
    assert!(found[0].starts_with("f:8:10: the region = \"mars-1\""), "{found:?}");
    let found = problems(&MINIMAL.replace("1 = { file = \"k\" }", "1 = { }"));
    assert!(found[0].contains("must say where the key is"), "{found:?}");
    let found = problems(&MINIMAL.replace("[master_keys]\n1 = { file = \"k\" }\n", ""));
    assert!(found[0].contains("generate-master-key"), "{found:?}");
}

#[test]
fn a_payment_provider_has_a_checkout_and_secrets() {
    let acme = |url: &str, secrets: &str| {
        format!(
            "[billing]\nprovider = \"acme\"\n[billing.providers.acme]\ncheckout_url = \"{url}\"\n\
             webhook_secrets = [{secrets}]\n"
        )
    };
    let good =
        acme("https://pay.example.com/{invoiceId}?a={amountCents}", "{ env = \"OLD\" }, { file = \"new\" }");
    let config = parse(&format!("{MINIMAL}{good}"), "f").unwrap();
    assert_eq!(config.billing.provider.as_deref(), Some("acme"));
    assert_eq!(config.billing.providers["acme"].webhook_secrets.len(), 2);
    for (text, said) in [
        (acme("https://pay.example.com/", "{ env = \"A\" }"), "with {invoiceId} in it"),
        (acme("https://pay.example.com/{invoiceId}/{tenant}", "{ env = \"A\" }"), "with {invoiceId} in it"),
        (acme("https://pay.example.com/{invoiceId}", ""), "must say where each secret is"),
        (acme("https://pay.example.com/{invoiceId}", "{ }"), "must say where each secret is"),
        ("[billing]\nprovider = \"acme\"\n".to_owned(), "or the name of a section [billing.providers.…]"),
        (good.replace("providers.acme", "providers.manual"), "and not manual"),
        ("[billing]\ngrace_days = 400\n".to_owned(), "a whole number from 0 to 365 days"),
    ] {
        let found = problems_with(&text);
        assert!(found.iter().any(|problem| problem.contains(said)), "{text}: {found:?}");
    }
}
