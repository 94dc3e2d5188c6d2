//! The fleet as the dashboard describes it, and which node of it a document belongs to.
//!
//! Pure: no clock, no socket. The list may be as old as the feed has been away; `/discovery` goes on with it, and a node
//! that is named although it is down is found out by whoever connects there and asks again.

use serde::Deserialize;
use uuid::Uuid;

use crate::splitmix;

/// What a node is, or should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NodeState {
    Active,
    Draining,
    /// Not heard of; also a state that this version doesn't know.
    #[serde(other)]
    Down,
}

/// A node of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member {
    pub id: Uuid,
    pub region: Box<str>,
    pub public_url: Box<str>,
    pub state: NodeState,
    /// What the operator wants it to be.
    pub wanted: NodeState,
}

/// All nodes, this one among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Fleet {
    /// This node's own id.
    #[serde(rename = "self")]
    me: Uuid,
    nodes: Vec<Member>,
}

/// This node, as it knows itself: the list may be behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    pub region: &'a str,
    pub url: &'a str,
    /// Takes new sessions now.
    pub accepts: bool,
}

/// Where a document is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub region: Box<str>,
    /// Of the node, without a slash at its end.
    pub url: Box<str>,
}

impl Fleet {
    /// Whether the operator wants this node drained; `None` if it is not in the list.
    pub fn wants_drain(&self) -> Option<bool> {
        self.nodes.iter().find(|node| node.id == self.me).map(|node| node.wanted == NodeState::Draining)
    }

    /// The node for a document (its stable hash) of an app of this region: this one if it is in the region and takes
    /// sessions; else one of the region that is active, the same one whichever node is asked; else one of the region that
    /// may come back, because an app's documents never leave their region. Only where the list has no node of the region
    /// does this node name itself.
    pub fn place(&self, here: Here<'_>, region: &str, document: u64) -> Place {
        let is_here = here.region == region;
        let found = || {
            [NodeState::Active, NodeState::Draining, NodeState::Down].into_iter().find_map(|state| {
                let others = self
                    .nodes
                    .iter()
                    .filter(|node| node.id != self.me && &*node.region == region && node.state == state);
                // Rendezvous hashing: when a node goes, only its documents move.
                let chosen = others.max_by_key(|node| (weight(document, node.id), node.id));
                // This node is one of those that may come back, and the one that was asked.
                if is_here && state != NodeState::Active { None } else { chosen }
            })
        };
        match if is_here && here.accepts { None } else { found() } {
            Some(node) => {
                Place { region: node.region.clone(), url: node.public_url.trim_end_matches('/').into() }
            }
            None => Place { region: here.region.into(), url: here.url.trim_end_matches('/').into() },
        }
    }
}

/// The same on every node and in every version: FNV-1a of both, mixed once more (splitmix64's end).
fn weight(document: u64, node: Uuid) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = document.to_le_bytes().into_iter().chain(node.into_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    splitmix::mix(hash)
}

#[cfg(test)]
mod tests {
    use super::NodeState::{Active, Down, Draining};
    use super::*;

    const EU: &str = "aws-eu-west-1";
    const US: &str = "aws-us-east-1";

    fn member(id: u128, region: &str, state: NodeState) -> Member {
        Member {
            id: Uuid::from_u128(id),
            region: region.into(),
            public_url: format!("wss://{id}.example/").into(),
            state,
            wanted: Active,
        }
    }

    fn fleet(me: u128, nodes: &[(u128, &str, NodeState)]) -> Fleet {
        let nodes = nodes.iter().map(|&(id, region, state)| member(id, region, state)).collect();
        Fleet { me: Uuid::from_u128(me), nodes }
    }

    fn here(region: &str, accepts: bool) -> Here<'_> {
        Here { region, url: "wss://here.example/", accepts }
    }

    fn url(fleet: &Fleet, here: Here<'_>, region: &str, document: u64) -> String {
        let place = fleet.place(here, region, document);
        assert!(!place.url.ends_with('/'));
        place.url.into()
    }

    #[test]
    fn a_node_of_the_region_that_takes_sessions_names_itself() {
        let fleet = fleet(1, &[(1, EU, Active), (2, EU, Active)]);
        for document in 0..50 {
            assert_eq!(url(&fleet, here(EU, true), EU, document), "wss://here.example");
        }
        assert_eq!(fleet.place(here(EU, true), EU, 1).region.as_ref(), EU);
    }

    #[test]
    fn elsewhere_every_node_names_the_same_active_one_of_the_region_and_all_get_their_share() {
        let nodes = [
            (1, US, Active),
            (2, EU, Active),
            (3, EU, Active),
            (4, EU, Draining),
            (5, EU, Down),
            (6, US, Active),
        ];
        let (one, other) = (fleet(1, &nodes), fleet(6, &nodes));
        let mut shares = std::collections::BTreeMap::new();
        for document in 0..1000 {
            let named = url(&one, here(US, true), EU, document);
            assert_eq!(named, url(&other, here(US, true), EU, document));
            *shares.entry(named).or_insert(0) += 1;
        }
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["wss://2.example", "wss://3.example"]);
        assert!(shares.values().all(|&share| share > 350), "{shares:?}");
        assert_eq!(one.place(here(US, true), EU, 1).region.as_ref(), EU);
    }

    #[test]
    fn when_a_node_goes_only_its_documents_move() {
        let nodes = [(1, US, Active), (2, EU, Active), (3, EU, Active), (4, EU, Active)];
        let mut after = nodes;
        after[3].2 = Draining;
        let (before, after) = (fleet(1, &nodes), fleet(1, &after));
        for document in 0..300 {
            let (was, is) =
                (url(&before, here(US, true), EU, document), url(&after, here(US, true), EU, document));
            assert!(was == is || was == "wss://4.example", "{was} moved to {is}");
        }
    }

    #[test]
    fn a_node_that_drains_names_another_of_its_region_and_itself_if_there_is_none() {
        let two = fleet(1, &[(1, EU, Draining), (2, EU, Active)]);
        assert_eq!(url(&two, here(EU, false), EU, 7), "wss://2.example");
        let alone = fleet(1, &[(1, EU, Draining), (2, EU, Down), (3, US, Active)]);
        assert_eq!(url(&alone, here(EU, false), EU, 7), "wss://here.example");
    }

    #[test]
    fn a_region_without_active_nodes_is_not_left_for_another() {
        let fleet = fleet(1, &[(1, US, Active), (2, EU, Down), (3, EU, Draining)]);
        assert_eq!(url(&fleet, here(US, true), EU, 7), "wss://3.example", "it may be back first");
        assert_eq!(url(&fleet, here(US, true), "aws-ap-south-1", 7), "wss://here.example");
        assert_eq!(url(&Fleet::default(), here(US, true), EU, 7), "wss://here.example", "no dashboard");
    }

    #[test]
    fn what_the_feed_says_is_understood_states_of_later_versions_too() {
        let id = Uuid::from_u128(1);
        let text = format!(
            r#"{{"self":"{id}","nodes":[{{"id":"{id}","name":"a","region":"{EU}","cluster":"c","publicUrl":"wss://a","state":"resting","wanted":"draining"}}]}}"#
        );
        let fleet: Fleet = serde_json::from_str(&text).unwrap();
        assert_eq!((fleet.nodes[0].state, fleet.wants_drain()), (Down, Some(true)));
        assert_eq!(Fleet::default().wants_drain(), None);
    }
}
