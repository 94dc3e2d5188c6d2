//! What was acknowledged, noted outside of the server; and whether it is still there.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use super::schedule::Schedule;
use super::support::wire::Wire;
use super::support::{Server, eventually};
use super::writers;

/// By document, the marks whose acknowledgement has arrived.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Recorder {
    pub fn acknowledged(&self, document: &str, marks: impl Iterator<Item = String>) {
        let mut documents = self.0.lock().expect("nobody panics in here");
        documents.entry(document.to_owned()).or_default().extend(marks);
    }

    /// How many marks there are.
    pub fn total(&self) -> usize {
        self.0.lock().expect("nobody panics in here").values().map(Vec::len).sum()
    }

    /// What is noted up to now.
    pub fn so_far(&self) -> BTreeMap<String, Vec<String>> {
        self.0.lock().expect("nobody panics in here").clone()
    }

    /// Goes on from here, as if what came behind had never been noted.
    pub fn reset_to(&self, marks: BTreeMap<String, Vec<String>>) {
        *self.0.lock().expect("nobody panics in here") = marks;
    }
}

/// The marks that somebody does not find who comes to this server anew, over either wire.
#[track_caller]
pub fn lost(
    server: &Server,
    token: &str,
    schedule: &mut Schedule,
    acknowledged: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let mut lost = Vec::new();
    for (document, marks) in acknowledged {
        let wire = if schedule.below(2) == 0 { Wire::YWebsocket } else { Wire::Hocuspocus(document.clone()) };
        let mut reader =
            eventually("a document opens", || writers::open(server.address, document, token, &wire));
        reader.flush();
        let text = reader.text();
        let found: HashSet<&str> = text.split(' ').collect();
        lost.extend(marks.iter().filter(|mark| !found.contains(mark.as_str())).cloned());
    }
    lost
}
