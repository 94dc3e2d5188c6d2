//! Updates that were never genuine, but miss nothing: what the fuzzer writes is read as a series of choices. Mutated bytes
//! hardly ever get past the pre-scan; of these, most do.

use wiresocket::engine::state_vector::StateVector;
use wiresocket::protocol::lib0::{write_var_str, write_var_u64};

const CLIENTS: u64 = 4;

/// Reads choices; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, end: u32) -> u32 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u32::from(first) % end.max(1)
    }
}

/// An update on top of `state`, by these choices.
pub fn update(choices: &[u8], state: &StateVector) -> Vec<u8> {
    let mut choices = Choices(choices);
    let mut next: [u32; CLIENTS as usize] = std::array::from_fn(|client| state.get(client as u64 + 1));
    let mut out = Vec::new();
    let sections = choices.below(4);
    let first = choices.below(CLIENTS as u32);
    write_var_u64(&mut out, u64::from(sections));
    for section in 0..sections {
        let client = ((first + section) % CLIENTS as u32) as usize;
        // Now and then again what is known, and other than it was.
        let behind = choices.below(8).saturating_sub(3).min(next[client]);
        let mut clock = next[client] - behind;
        let structs = 1 + choices.below(5);
        write_var_u64(&mut out, u64::from(structs));
        write_var_u64(&mut out, client as u64 + 1);
        write_var_u64(&mut out, u64::from(clock));
        for _ in 0..structs {
            clock += add_struct(&mut choices, client, clock, &next, &mut out);
        }
        next[client] = next[client].max(clock);
    }
    add_deletes(&mut choices, &next, &mut out);
    out
}

/// Any element there is; of this client only what is before `clock`.
fn any_id(choices: &mut Choices<'_>, client: usize, clock: u32, next: &[u32]) -> Option<(u64, u32)> {
    let other = choices.below(CLIENTS as u32) as usize;
    let end = if other == client { clock } else { next[other] };
    (end > 0).then(|| (other as u64 + 1, choices.below(end)))
}

fn add_struct(choices: &mut Choices<'_>, client: usize, clock: u32, next: &[u32], out: &mut Vec<u8>) -> u32 {
    let shape = choices.below(64);
    if shape == 63 {
        let len = 1 + choices.below(3);
        out.extend([0, len as u8]);
        return len;
    }
    let (kind, content, len) = content(choices);
    let mut reference = |bit: u32| if shape & bit == 0 { None } else { any_id(choices, client, clock, next) };
    let (origin, right, parent) = (reference(1), reference(2), reference(4));
    let key = shape & 8 != 0;
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(kind | flag(origin.is_some(), 0x80) | flag(right.is_some(), 0x40) | flag(key, 0x20));
    for (client, clock) in [origin, right].into_iter().flatten() {
        write_var_u64(out, client);
        write_var_u64(out, u64::from(clock));
    }
    if origin.is_none() && right.is_none() {
        match parent {
            Some((client, clock)) => {
                out.push(0);
                write_var_u64(out, client);
                write_var_u64(out, u64::from(clock));
            }
            None => {
                out.push(1);
                write_var_str(out, ["t", "m", ""][(shape >> 4) as usize % 3]);
            }
        }
        if key {
            write_var_str(out, ["k", "l"][(shape >> 5) as usize % 2]);
        }
    }
    out.extend(content);
    len
}

fn content(choices: &mut Choices<'_>) -> (u8, Vec<u8>, u32) {
    let string = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    match choices.below(16) {
        0 => (1, vec![1], 1),
        1 => (1, vec![3], 3),
        2 => (3, vec![1, 7], 1),
        3 => (4, string("a"), 1),
        4 | 5 => (4, string("abc"), 3),
        6 => (4, string("x\u{1f600}y\u{e9}"), 5),
        7 => (5, string("{\"a\":[1,null]}"), 1),
        8 => (6, [string("b"), string("null")].concat(), 1),
        9 => (6, [string("b"), string("true")].concat(), 1),
        10 => (8, vec![2, 126, 117, 1, 120], 2),
        11 => (9, [string("guid"), vec![118, 0]].concat(), 1),
        12 => (7, [vec![3], string("p")].concat(), 1),
        kind => (7, vec![[0, 1, 2, 6][(kind % 4) as usize]], 1),
    }
}

fn add_deletes(choices: &mut Choices<'_>, next: &[u32], out: &mut Vec<u8>) {
    let which = choices.below(16);
    let clients: Vec<usize> =
        (0..next.len()).filter(|&client| next[client] > 0 && which & (1 << client) != 0).collect();
    write_var_u64(out, clients.len() as u64);
    for client in clients {
        write_var_u64(out, client as u64 + 1);
        let ranges = 1 + choices.below(3);
        write_var_u64(out, u64::from(ranges));
        for _ in 0..ranges {
            let start = choices.below(next[client]);
            let len = 1 + choices.below(8.min(next[client] - start));
            write_var_u64(out, u64::from(start));
            write_var_u64(out, u64::from(len));
        }
    }
}
