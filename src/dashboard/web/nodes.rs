//! The fleet as its operator sees it: what each node says of itself, and draining it.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;

use super::form::Fields;
use super::page::{Done, Failure, Shell, again, page, redirect};
use super::text::{grouped, span};
use super::visit::{Member, Posted};
use crate::dashboard::nodes::{self, Node, NodeState};

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    shell: Shell,
    nodes: Vec<Row>,
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
    /// Of its capacity, where it has said one.
    load_percent: Option<i64>,
}

impl Row {
    fn new(node: Node, now: i64) -> Self {
        Self {
            heartbeat: span(now - node.last_heartbeat_at),
            connections: grouped(node.connections),
            documents: grouped(node.documents),
            load_percent: (node.capacity > 0).then(|| (node.connections * 100 / node.capacity).min(100)),
            node,
        }
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
    let nodes = nodes.into_iter().map(|node| Row::new(node, dashboard.now())).collect();
    let issuer = dashboard.config.issuer.as_str().to_owned();
    Ok(NodesPage { shell, nodes, form, secret, issuer })
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
