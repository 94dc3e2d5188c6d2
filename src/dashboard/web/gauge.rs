//! How much of its limits an app uses now: a figure, its limit and a bar.

use askama::Template;

use super::text::grouped;
use crate::dashboard::usage::Live;
use crate::limits::Level;

/// One figure, ready to be put into a page. Only phrasing content, so that it can be in a link.
#[derive(Debug, Clone, Template)]
#[template(path = "gauge.html")]
pub(super) struct Gauge {
    /// In the page, and in what a script asks for.
    pub name: &'static str,
    pub label: &'static str,
    current: i64,
    /// `None`: the app has no plan.
    limit: Option<i64>,
}

impl Gauge {
    /// What a plan limits of an app as a whole.
    pub fn all(live: &Live) -> [Self; 3] {
        let limit = |of: fn(&crate::dashboard::plans::Plan) -> i64| live.plan.as_ref().map(of);
        [
            Self::new("connections", "Connections", live.connections, limit(|plan| plan.max_connections)),
            Self::new("documents", "Open documents", live.documents, limit(|plan| plan.max_documents)),
            Self::new("ops", "Changes this minute", live.ops_this_minute, limit(|plan| plan.ops_per_minute)),
        ]
    }

    const fn new(name: &'static str, label: &'static str, current: i64, limit: Option<i64>) -> Self {
        Self { name, label, current, limit }
    }

    pub const fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    pub fn figure(&self) -> String {
        grouped(self.current)
    }

    pub fn of(&self) -> String {
        self.limit.map(|limit| format!("of {}", grouped(limit))).unwrap_or_default()
    }

    /// `healthy`, `warning`, `critical`; nothing without a limit.
    pub fn level(&self) -> &'static str {
        let whole = |figure: i64| u64::try_from(figure).unwrap_or(0);
        self.limit.map_or("", |limit| Level::of(whole(self.current), whole(limit)).as_str())
    }

    /// What is said beside the bar, so that its colour is not all there is.
    pub fn warning(&self) -> &'static str {
        match self.level() {
            "healthy" => "",
            level => level,
        }
    }

    /// Of a bar of 100.
    pub fn percent(&self) -> i64 {
        match self.limit {
            Some(limit) if limit > 0 => (self.current.saturating_mul(100) / limit).clamp(0, 100),
            Some(_) if self.current > 0 => 100,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_says_in_words_what_its_colour_says() {
        let full = Gauge::new("connections", "Connections", 950, Some(1000));
        let html = full.to_string();
        assert!(html.contains("950") && html.contains("of 1,000") && html.contains("width=\"95\""), "{html}");
        assert!(html.contains(">critical<"), "{html}");
        let few = Gauge::new("connections", "Connections", 3, Some(1000)).to_string();
        assert!(few.contains("gauge healthy") && !few.contains(">healthy<"), "{few}");
        let none = Gauge::new("connections", "Connections", 3, None);
        assert_eq!((none.level(), none.of().as_str(), none.percent()), ("", "", 0));
    }
}
