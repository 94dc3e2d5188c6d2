//! `/metrics`, parsed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::http;

/// One scrape. A sample is named as it stands on the page, labels included.
#[derive(Debug, Clone)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    #[track_caller]
    pub fn scrape(address: SocketAddr) -> Self {
        let response = http::get(address, "/metrics");
        assert_eq!(response.status, 200, "{}", response.text());
        Self::parse(response.text())
    }

    #[track_caller]
    pub fn parse(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line:?}")))
        };
        Self(samples.map(sample).collect())
    }

    /// `wiresocket_documents_active`, or `wiresocket_closes_total{code="4004"}`. What has labels, and what the journal reports, may
    /// not be there yet, and is 0 then; all else is there from the start, or misspelt.
    #[track_caller]
    pub fn get(&self, sample: &str) -> f64 {
        match self.0.get(sample) {
            Some(value) => *value,
            None => {
                let comes_later = sample.contains('{') || sample.starts_with("wiresocket_journal_");
                assert!(comes_later, "there is no {sample} on the page");
                0.0
            }
        }
    }

    pub fn has(&self, sample: &str) -> bool {
        self.0.contains_key(sample)
    }

    /// All samples of a family with their labels.
    pub fn family(&self, name: &str) -> Vec<(&str, f64)> {
        let of_family = |sample: &str| sample.split('{').next() == Some(name);
        self.0.iter().filter(|(sample, _)| of_family(sample)).map(|(s, v)| (s.as_str(), *v)).collect()
    }

    /// How many refusals and ends with this code there were.
    pub fn closes(&self, code: u16) -> f64 {
        self.get(&format!("wiresocket_closes_total{{code=\"{code}\"}}"))
    }
}
