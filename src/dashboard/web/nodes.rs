//! The fleet as its operator sees it: what each node says of itself, and draining it.

use askama::Template;
use axum::response::Response;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Shell, again, page, redirect};
use super::text::{grouped, span};
use super::visit::{Member, Posted, Query};
use crate::dashboard::nodes::{self, Node, NodeState};
use crate::dashboard::region::LicenseRegion;

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    shell: Shell,
    nodes: Vec<Row>,
    map: Vec<Region>,
    form: Fields,
    /// A new enrolment secret, shown this once.
    secret: Option<String>,
    issuer: String,
}

struct Row {
    node: Node,
    heartbeat: String,
    connections: String,
    documents: String,
    capacity: String,
    /// Of its capacity, where it has said one.
    load_percent: Option<i64>,
}

/// A region on the map, with how many of its nodes are in which state.
#[derive(Debug, PartialEq, Eq)]
struct Region {
    code: &'static str,
    active: usize,
    draining: usize,
    down: usize,
}

impl Region {
    /// Every region that there is: one without a node is shown as that.
    fn all(nodes: &[Node]) -> Vec<Self> {
        let each = |region: LicenseRegion| {
            let code = region.code();
            let count =
                |state| nodes.iter().filter(|node| node.region == code && node.state == state).count();
            Self {
                code,
                active: count(NodeState::Active),
                draining: count(NodeState::Draining),
                down: count(NodeState::Down),
            }
        };
        LicenseRegion::all().map(each).into()
    }

    /// The state that an operator must know of first.
    fn state(&self) -> &'static str {
        match self {
            Self { down: 1.., .. } => "down",
            Self { draining: 1.., .. } => "draining",
            Self { active: 1.., .. } => "active",
            _ => "none",
        }
    }

    fn name(&self) -> &'static str {
        self.code.trim_start_matches("aws-")
    }

    fn total(&self) -> usize {
        self.active + self.draining + self.down
    }

    fn in_words(&self) -> String {
        let states = [(self.active, "active"), (self.draining, "draining"), (self.down, "down")];
        let some = states.iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = some.map(|(count, state)| format!("{count} {state}")).collect();
        if words.is_empty() { "no node".to_owned() } else { words.join(", ") }
    }
}

impl Row {
    fn new(node: Node, now: i64) -> Self {
        Self {
            heartbeat: span(now - node.last_heartbeat_at),
            connections: grouped(node.connections),
            documents: format!(
                "{} document{}",
                grouped(node.documents),
                if node.documents == 1 { "" } else { "s" }
            ),
            capacity: grouped(node.capacity),
            load_percent: (node.capacity > 0).then(|| (node.connections * 100 / node.capacity).min(100)),
            node,
        }
    }

    /// What a drain still waits for.
    fn drain_left(&self) -> Option<String> {
        let left = match self.node.connections {
            _ if self.node.state != NodeState::Draining => return None,
            0 => "empty: it can be stopped".to_owned(),
            1 => "1 connection left".to_owned(),
            _ => format!("{} connections left", self.connections),
        };
        Some(left)
    }

    /// What its buttons depend on.
    fn key(&self) -> String {
        format!("{} {}", self.node.name, self.is_draining())
    }

    fn is_draining(&self) -> bool {
        self.node.state == NodeState::Draining
    }
}

async fn nodes_page(
    member: &Member,
    shell: Shell,
    form: Fields,
    secret: Option<String>,
) -> Result<NodesPage, Failure> {
    let dashboard = member.dashboard();
    let nodes = nodes::list(dashboard, &member.actor()).await?;
    let map = Region::all(&nodes);
    let nodes = nodes.into_iter().map(|node| Row::new(node, dashboard.now())).collect();
    let issuer = dashboard.config.issuer.as_str().to_owned();
    Ok(NodesPage { shell, nodes, map, form, secret, issuer })
}

pub(super) async fn list(member: Member, Query(done): Query<Done>) -> Result<Response, Failure> {
    let mut form = Fields::default();
    form.set("uses", "1");
    form.set("days", "1");
    Ok(page(&nodes_page(&member, member.shell("operator-nodes").after(&done), form, None).await?))
}

pub(super) async fn create_enrolment(Posted(member, mut form): Posted<Member>) -> Result<Response, Failure> {
    let number = |name: &str| form.get(name).trim().parse::<i64>().unwrap_or(0);
    let (uses, days) = (number("uses"), number("days"));
    let made = nodes::create_enrolment(member.dashboard(), &member.actor(), uses, days).await;
    let shell = member.shell("operator-nodes");
    match made.map_err(Failure::from) {
        Ok(secret) => Ok(page(&nodes_page(&member, shell, form, Some(secret)).await?)),
        Err(failure) if failure.is_told() => {
            form.wrong_whole(&failure.text);
            Ok(again(&nodes_page(&member, shell, form, None).await?))
        }
        Err(failure) => Err(failure),
    }
}

pub(super) async fn drain(Posted(member, form): Posted<Member>) -> Result<Response, Failure> {
    nodes::set_draining(member.dashboard(), &member.actor(), form.get("node"), true).await?;
    Ok(redirect("/operator/nodes", "draining"))
}

pub(super) async fn undrain(Posted(member, form): Posted<Member>) -> Result<Response, Failure> {
    nodes::set_draining(member.dashboard(), &member.actor(), form.get("node"), false).await?;
    Ok(redirect("/operator/nodes", "undraining"))
}

pub(super) async fn remove(Posted(member, form): Posted<Member>) -> Result<Response, Failure> {
    nodes::remove(member.dashboard(), &member.actor(), form.get("node")).await?;
    Ok(redirect("/operator/nodes", "node-removed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_sheet_knows_where_every_region_is() {
        let style = include_str!("assets/style.css");
        for region in LicenseRegion::all() {
            assert!(style.contains(&format!(".at-{} {{ left:", region.code())), "{region}");
        }
    }

    #[test]
    fn a_region_shows_what_is_worst_in_it() {
        let region = |active, draining, down| Region { code: "aws-eu-west-1", active, draining, down };
        assert_eq!((region(2, 0, 0).state(), region(2, 1, 0).state()), ("active", "draining"));
        assert_eq!((region(2, 1, 1).state(), region(0, 0, 0).state()), ("down", "none"));
        assert_eq!(region(2, 0, 1).in_words(), "2 active, 1 down");
        assert_eq!((region(0, 0, 0).in_words().as_str(), region(0, 0, 0).name()), ("no node", "eu-west-1"));
    }
}
