//! Editing traces: read from where they are, or made up.
//!
//! Positions count code points, in the files and in everything here; the documents count UTF-16 units, which is the
//! same as long as no character lies beyond the basic plane: a trace for which that doesn't hold is refused.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// At `position`, `deleted` characters give way to `inserted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub position: u32,
    pub deleted: u32,
    pub inserted: String,
}

/// One author's edits, each on the text after the one before.
pub struct Sequential {
    pub source: String,
    pub edits: Vec<Edit>,
    pub end: String,
}

/// One transaction of a concurrent trace, on the text of its parents merged.
pub struct Transaction {
    pub agent: usize,
    pub parents: Vec<usize>,
    pub edits: Vec<Edit>,
}

/// Edits of several agents who saw each other's with delay.
pub struct Concurrent {
    pub source: String,
    pub agents: usize,
    pub transactions: Vec<Transaction>,
    pub end: String,
}

/// Transactions of one agent between which it merged nothing and nobody merged it: one update.
pub struct Run {
    pub agent: usize,
    pub transactions: usize,
    pub edits: Vec<Edit>,
    /// How many transactions of each agent its author had seen.
    pub seen: Vec<usize>,
}

/// splitmix64.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

pub fn seed() -> u64 {
    std::env::var("WIRESOCKET_SEED").map_or(1, |seed| seed.parse().expect("WIRESOCKET_SEED is a number"))
}

/// The trace's JSON; none if no folder of traces is named. A named folder must have it: a test that makes up what it was
/// to read proves something else. `gzip` unpacks it: every Unix has it, and it is no crate to carry along.
fn read(name: &str) -> Option<(String, Value)> {
    let folder = PathBuf::from(std::env::var_os("WIRESOCKET_TRACES").filter(|folder| !folder.is_empty())?);
    let path = folder.join(format!("{name}.json.gz"));
    assert!(
        path.is_file(),
        "there is no {name}.json.gz in the folder WIRESOCKET_TRACES={}: github.com/josephg/editing-traces has it",
        folder.display()
    );
    let output = Command::new("gzip").arg("-dc").arg(&path).output().expect("gzip runs");
    assert!(output.status.success(), "gzip cannot unpack {}", path.display());
    Some((name.to_owned(), serde_json::from_slice(&output.stdout).expect("the trace is JSON")))
}

fn edits(transaction: &Value) -> Vec<Edit> {
    let patches = transaction["patches"].as_array().expect("patches");
    let edit = |patch: &Value| Edit {
        position: u32::try_from(patch[0].as_u64().expect("a position")).expect("32 bits"),
        deleted: u32::try_from(patch[1].as_u64().expect("a count")).expect("32 bits"),
        inserted: patch[2].as_str().expect("a text").to_owned(),
    };
    patches.iter().map(edit).collect()
}

fn assert_basic_plane<'a>(edits: impl IntoIterator<Item = &'a Edit>) {
    let beyond = edits.into_iter().flat_map(|edit| edit.inserted.chars()).find(|c| *c > '\u{ffff}');
    assert_eq!(beyond, None, "positions in this trace are not UTF-16 offsets");
}

/// Edits that continue one another become one: typing forward, and deleting back- or forwards.
pub fn joined(edits: &[Edit]) -> Vec<Edit> {
    let mut joined: Vec<Edit> = Vec::new();
    for edit in edits {
        if let Some(last) = joined.last_mut() {
            let typed = last.inserted.chars().count() as u32;
            if edit.deleted == 0 && last.position + typed == edit.position {
                last.inserted.push_str(&edit.inserted);
                continue;
            }
            let deletes = edit.inserted.is_empty() && last.inserted.is_empty();
            if deletes && edit.position + edit.deleted == last.position {
                last.position = edit.position;
                last.deleted += edit.deleted;
                continue;
            }
            if deletes && edit.position == last.position {
                last.deleted += edit.deleted;
                continue;
            }
        }
        joined.push(edit.clone());
    }
    joined
}

/// A text that moves its gap, so that neighbouring edits cost nothing.
#[derive(Default)]
struct GapBuffer {
    before: Vec<char>,
    after: Vec<char>,
}

impl GapBuffer {
    fn apply(&mut self, edit: &Edit) {
        let position = edit.position as usize;
        while self.before.len() > position {
            self.after.extend(self.before.pop());
        }
        while self.before.len() < position {
            self.before.push(self.after.pop().expect("the position is in the text"));
        }
        let left =
            self.after.len().checked_sub(edit.deleted as usize).expect("what is deleted is in the text");
        self.after.truncate(left);
        self.before.extend(edit.inserted.chars());
    }

    fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    fn text(&self) -> String {
        self.before.iter().chain(self.after.iter().rev()).collect()
    }
}

impl Sequential {
    pub fn load() -> Self {
        let trace = match read("automerge-paper") {
            Some((source, json)) => {
                assert_eq!(json["startContent"], "", "a trace that begins with a text");
                let edits = json["txns"].as_array().expect("transactions").iter().flat_map(edits).collect();
                Self { source, edits, end: json["endContent"].as_str().expect("a text").to_owned() }
            }
            None => Self::generate(259_778),
        };
        assert_basic_plane(&trace.edits);
        trace
    }

    /// Single characters, seven of ten inserted; typing in runs, backspacing in runs, a jump now and then.
    fn generate(count: usize) -> Self {
        let mut random = Random::new(seed());
        let mut text = GapBuffer::default();
        let mut edits: Vec<Edit> = Vec::with_capacity(count);
        let mut cursor = 0;
        while edits.len() < count {
            if random.below(4) == 0 {
                cursor = random.below(text.len() + 1);
            }
            let deletes = random.below(10) < 3;
            for _ in 0..1 + random.below(20) {
                let edit = if deletes {
                    if cursor == 0 {
                        break;
                    }
                    cursor -= 1;
                    Edit { position: cursor as u32, deleted: 1, inserted: String::new() }
                } else {
                    cursor += 1;
                    let letter = char::from(b'a' + random.below(26) as u8);
                    Edit { position: cursor as u32 - 1, deleted: 0, inserted: letter.to_string() }
                };
                text.apply(&edit);
                edits.push(edit);
            }
        }
        let end = text.text();
        Self { source: "a made-up trace".to_owned(), edits, end }
    }
}

impl Concurrent {
    pub fn load() -> Self {
        let trace = match read("friendsforever") {
            Some((source, json)) => {
                let number =
                    |value: &Value| usize::try_from(value.as_u64().expect("a number")).expect("a size");
                let transaction = |txn: &Value| Transaction {
                    agent: number(&txn["agent"]),
                    parents: txn["parents"].as_array().expect("parents").iter().map(number).collect(),
                    edits: edits(txn),
                };
                Self {
                    source,
                    agents: number(&json["numAgents"]),
                    transactions: json["txns"].as_array().expect("txns").iter().map(transaction).collect(),
                    end: json["endContent"].as_str().expect("a text").to_owned(),
                }
            }
            None => Self::generate(26_078),
        };
        assert_basic_plane(trace.transactions.iter().flat_map(|txn| &txn.edits));
        trace
    }

    /// Two people who type at the end of a paragraph of their own, and see each other's paragraph with delay. Neither
    /// ever writes where the other does, so the text they end in does not depend on how a CRDT breaks ties.
    fn generate(count: usize) -> Self {
        let mut random = Random::new(seed());
        let mut transactions: Vec<Transaction> = Vec::with_capacity(count);
        let first = Edit { position: 0, deleted: 0, inserted: "\n".to_owned() };
        transactions.push(Transaction { agent: 0, parents: vec![], edits: vec![first] });
        // What each has written, and how long the other's paragraph was when it was last merged.
        let mut texts = [String::new(), String::new()];
        let mut seen = [0, 0];
        let mut last = [0, 0];
        let mut agent = 0;
        while transactions.len() < count {
            agent = if random.below(8) == 0 { 1 - agent } else { agent };
            let mut parents = vec![last[agent]];
            let merges = random.below(10) == 0 && last[1 - agent] > 0;
            if merges || last[agent] == 0 {
                seen[agent] = texts[1 - agent].len();
                if last[1 - agent] > 0 {
                    parents.push(last[1 - agent]);
                }
            }
            let before = if agent == 0 { 0 } else { seen[1] + 1 };
            let letter = char::from(b'a' + random.below(26) as u8);
            let deletes = !texts[agent].is_empty() && random.below(10) < 3;
            let end = before + texts[agent].len();
            let edit = if deletes {
                texts[agent].pop();
                Edit { position: end as u32 - 1, deleted: 1, inserted: String::new() }
            } else {
                texts[agent].push(letter);
                Edit { position: end as u32, deleted: 0, inserted: letter.to_string() }
            };
            last[agent] = transactions.len();
            transactions.push(Transaction { agent, parents, edits: vec![edit] });
        }
        let end = format!("{}\n{}", texts[0], texts[1]);
        Self { source: "a made-up trace".to_owned(), agents: 2, transactions, end }
    }

    /// The transactions as runs, in an order in which each comes after what it had seen.
    pub fn runs(&self) -> Vec<Run> {
        let seen = self.seen();
        // Whoever merges a transaction of another agent must be able to: its run ends there.
        let mut is_last = vec![false; self.transactions.len()];
        for (at, transaction) in self.transactions.iter().enumerate() {
            for &parent in &transaction.parents {
                if self.transactions[parent].agent != transaction.agent {
                    is_last[parent] = true;
                }
            }
            if at + 1 == self.transactions.len() {
                is_last[at] = true;
            }
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut open: Vec<Option<Run>> = (0..self.agents).map(|_| None).collect();
        for (at, transaction) in self.transactions.iter().enumerate() {
            let agent = transaction.agent;
            let others = |seen: &[usize]| {
                (0..self.agents).filter(|n| *n != agent).map(|n| seen[n]).collect::<Vec<_>>()
            };
            if open[agent].as_ref().is_some_and(|run| others(&run.seen) != others(&seen[at])) {
                runs.extend(open[agent].take());
            }
            let run = open[agent].get_or_insert_with(|| Run {
                agent,
                transactions: 0,
                edits: Vec::new(),
                seen: seen[at].clone(),
            });
            run.transactions += 1;
            run.edits.extend(transaction.edits.iter().cloned());
            if is_last[at] {
                runs.extend(open[agent].take());
            }
        }
        runs.extend(open.into_iter().flatten());
        for run in &mut runs {
            run.edits = joined(&run.edits);
        }
        runs
    }

    /// For each transaction, how many of each agent's its author had seen before it.
    fn seen(&self) -> Vec<Vec<usize>> {
        let mut after: Vec<Vec<usize>> = Vec::with_capacity(self.transactions.len());
        let mut written = vec![0; self.agents];
        let mut before = Vec::with_capacity(self.transactions.len());
        for transaction in &self.transactions {
            let mut seen = vec![0; self.agents];
            for &parent in &transaction.parents {
                for (agent, count) in after[parent].iter().enumerate() {
                    seen[agent] = seen[agent].max(*count);
                }
            }
            let agent = transaction.agent;
            assert_eq!(seen[agent], written[agent], "an author has always seen its own edits");
            before.push(seen.clone());
            written[agent] += 1;
            seen[agent] += 1;
            after.push(seen);
        }
        before
    }
}
