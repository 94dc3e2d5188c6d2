//! What happens next: a shard's loop, turn by turn, and time.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::client::End;
use super::network::{CONTROL, JOURNAL, Letter};
use super::world::{UNIX_S, World};
use crate::engine::Engine;
use crate::engine::batch::Batch;
use crate::engine::event::{Effect, Event, Incoming, ShardIndex};
use crate::journal::Command;
use crate::journal::log::Log;
use crate::time::Now;

#[derive(Debug, Clone, Copy)]
enum Choice {
    Deliver(ShardIndex, ShardIndex),
    Receive(usize),
    Read(usize),
    Finish(usize),
    Commit,
}

impl World {
    pub fn tell(&mut self, shard: usize, event: Event<'_>) {
        self.hear(shard, event);
        self.end_of_turn(shard);
    }

    pub(super) fn hear(&mut self, shard: usize, event: Event<'_>) {
        // What the engine wants is carried out at the end of the turn; but a socket that has left the engine leaves at once.
        let speaker = match &event {
            Event::Received { connection, .. } => Some(*connection),
            _ => None,
        };
        let may_wait = matches!(
            event,
            Event::Received { .. }
                | Event::Mail { .. }
                | Event::Reserved { .. }
                | Event::OpsLeased { .. }
                | Event::Journal(_)
        );
        self.engines[shard].handle_event(self.now, event);
        self.open_turns.insert(shard);
        if !may_wait || speaker.is_some_and(|connection| !self.engines[shard].knows(connection)) {
            self.carry_out(shard);
        }
        self.watch(shard);
    }

    pub(super) fn end_of_turn(&mut self, shard: usize) {
        if !self.chaotic || self.random.one_in(2) {
            self.finish_turn(shard);
        }
    }

    pub(super) fn finish_turn(&mut self, shard: usize) {
        self.open_turns.remove(&shard);
        self.engines[shard].handle_timeout(self.now);
        loop {
            self.carry_out(shard);
            let full = self.transmit(shard);
            self.carry_out(shard);
            if full.is_empty() {
                return self.watch(shard);
            }
            for socket in full {
                if let Some((_, connection)) = self.sockets[socket].place {
                    self.engines[shard].handle_event(self.now, Event::Stalled { connection });
                }
            }
        }
    }

    fn transmit(&mut self, shard: usize) -> Vec<usize> {
        let (mut batch, mut full) = (Batch::default(), Vec::new());
        while self.engines[shard].poll_transmit(self.now, &mut batch) {
            let mut written = FxHashSet::default();
            for (connection, bytes) in batch.iter() {
                assert!(written.insert(connection), "a socket is twice in a batch");
                assert!(!bytes.is_empty(), "nothing for somebody");
                let &at =
                    self.connections[shard].get(connection).expect("the engine writes to open sockets only");
                let socket = &mut self.sockets[at];
                socket.incoming.extend_from_slice(bytes);
                if !socket.stalled && socket.incoming.len() > self.outbox_bytes_max {
                    socket.stalled = true;
                    full.push(at);
                }
            }
            batch.clear();
        }
        full
    }

    pub(super) fn carry_out(&mut self, shard: usize) {
        let from = u16::try_from(shard).unwrap();
        while let Some(effect) = self.engines[shard].poll_effect() {
            match effect {
                Effect::Reserve { ticket, claim, limits, issued_unix_s } => {
                    self.send(from, CONTROL, Letter::Reserve { ticket, claim, limits, issued_unix_s });
                }
                Effect::Release { claim } => self.send(from, CONTROL, Letter::Release(claim)),
                Effect::LeaseOps { app, ops_per_minute, wanted } => {
                    self.send(from, CONTROL, Letter::LeaseOps { app, ops_per_minute, wanted });
                }
                Effect::RefreshKeys { ticket, .. } => {
                    self.send(from, CONTROL, Letter::RefreshKeys { ticket });
                }
                Effect::Mail { to, mail } => self.send(from, to, Letter::Mail(mail)),
                Effect::Move { connection, to, opening } => {
                    let socket = self.connections[shard].remove(connection).expect("it moves once");
                    self.sockets[socket].place = None;
                    assert!(!self.sockets[socket].stalled, "a socket that takes nothing stays where it is");
                    self.send(from, to, Letter::HandOver { socket, opening });
                }
                Effect::Close { connection, refusal } => {
                    // Its client may have hung up in the same turn.
                    let Some(at) = self.connections[shard].remove(connection) else { continue };
                    let socket = &mut self.sockets[at];
                    socket.place = None;
                    // A client that hung up while its socket was on its way has ended it already.
                    assert!(!matches!(socket.end, Some(End::ByServer(_))), "a socket ends once");
                    socket.end.get_or_insert(End::ByServer(refusal));
                }
                Effect::Append { number, records, awaited } => {
                    self.tell_journal(Command::Append { shard: from, number, records, awaited });
                }
                Effect::Keep { document, contents, rests } => {
                    self.tell_journal(Command::Keep { shard: from, document, contents, rests });
                }
                Effect::Load { document } => self.tell_journal(Command::Load { shard: from, document }),
                Effect::Denied { connection, .. } => {
                    assert!(self.connections[shard].get(connection).is_some(), "denied after the end");
                }
            }
        }
    }

    fn tell_journal(&mut self, command: Command) {
        let (Command::Append { shard, .. } | Command::Keep { shard, .. } | Command::Load { shard, .. }) =
            &command;
        self.send(*shard, JOURNAL, Letter::Command(command));
    }

    /// Everything that may happen at this moment.
    fn choices(&self) -> Vec<Choice> {
        let due = |(_, pipe): &(_, &VecDeque<(Duration, Letter)>)| {
            pipe.front().is_some_and(|(due, _)| *due <= self.now.monotonic)
        };
        let mut choices: Vec<Choice> =
            self.pipes.iter().filter(due).map(|(&(from, to), _)| Choice::Deliver(from, to)).collect();
        for (at, socket) in self.sockets.iter().enumerate() {
            if socket.end.is_none() {
                if !socket.outgoing.is_empty() && socket.place.is_some() && !socket.stalled {
                    choices.push(Choice::Receive(at));
                }
                if !socket.incoming.is_empty() && socket.reads {
                    choices.push(Choice::Read(at));
                }
            }
        }
        if choices.is_empty() || self.chaotic {
            choices.extend(self.open_turns.iter().map(|&shard| Choice::Finish(shard)));
        }
        if (choices.is_empty() || self.chaotic)
            && !self.holds_commits
            && !self.died
            && self.journal.as_ref().is_some_and(Log::has_work)
        {
            choices.push(Choice::Commit);
        }
        choices
    }

    /// Lets one thing happen, if anything may.
    pub fn step(&mut self) -> bool {
        let choices = self.choices();
        if choices.is_empty() {
            return false;
        }
        let choice = if self.chaotic { *self.random.pick(&choices) } else { choices[0] };
        match choice {
            Choice::Deliver(from, to) => self.deliver(from, to),
            Choice::Finish(shard) => self.finish_turn(shard),
            Choice::Commit => self.commit(),
            Choice::Receive(at) => {
                let message = self.sockets[at].outgoing.pop_front().unwrap();
                let (shard, connection) = self.sockets[at].place.unwrap();
                let message = Incoming::Binary(&message);
                self.tell(usize::from(shard), Event::Received { connection, message });
            }
            Choice::Read(at) => {
                self.sockets[at].read();
                self.note_stored(at);
                if std::mem::take(&mut self.sockets[at].stalled)
                    && let Some((shard, connection)) = self.sockets[at].place
                {
                    self.tell(usize::from(shard), Event::Resumed { connection });
                }
            }
        }
        true
    }

    /// A stalled socket took some bytes, but not all that wait.
    pub fn take_some(&mut self, socket: usize) {
        let (shard, connection) = self.sockets[socket].place.unwrap();
        self.tell(usize::from(shard), Event::Progressed { connection });
    }

    /// A control frame or a text message of a client, at once.
    pub fn receive(&mut self, socket: usize, message: Incoming<'_>) {
        let (shard, connection) = self.sockets[socket].place.expect("it is open");
        self.tell(usize::from(shard), Event::Received { connection, message });
    }

    /// The server takes in everything a client has sent, in one turn.
    pub fn receive_at_once(&mut self, socket: usize) {
        let (shard, connection) = self.sockets[socket].place.expect("it is open");
        let shard = usize::from(shard);
        while let Some(message) = self.sockets[socket].outgoing.pop_front() {
            let message = Incoming::Binary(&message);
            self.engines[shard].handle_event(self.now, Event::Received { connection, message });
        }
        self.finish_turn(shard);
    }

    /// Delivers all letters without ending a shard's turn in between.
    pub fn deliver_in_one_turn(&mut self) {
        while let Some((&(from, to), _)) = self.pipes.iter().find(|(_, pipe)| !pipe.is_empty()) {
            let (_, letter) = self.pipes.get_mut(&(from, to)).unwrap().pop_front().unwrap();
            self.deliver_letter(from, to, letter);
        }
    }

    /// Lets everything happen that is under way. Time moves only as far as the network is slow.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if self.step() {
                continue;
            }
            let Some(due) = self.next_letter() else { return };
            self.set_time(due);
        }
        panic!("it never settles");
    }

    fn next_letter(&self) -> Option<Duration> {
        self.pipes.values().filter_map(|pipe| pipe.front()).map(|(due, _)| *due).min()
    }

    /// Lets time pass, and everything that falls due happen in its time.
    pub fn pass(&mut self, by: Duration) {
        let until = self.now.monotonic + by;
        for _ in 0..1_000_000 {
            if self.step() {
                continue;
            }
            let timeout = self.engines.iter().filter_map(Engine::poll_timeout).min();
            let next = timeout.into_iter().chain(self.next_letter()).min();
            match next.filter(|next| *next <= until) {
                Some(next) => self.set_time(next),
                None => {
                    self.set_time(until);
                    return;
                }
            }
        }
        panic!("time stands still");
    }

    pub fn pass_s(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
        self.settle();
    }

    fn set_time(&mut self, at: Duration) {
        let at = at.max(self.now.monotonic);
        self.note_time(at);
        let unix_s = (UNIX_S + at.as_secs() - 1000).saturating_add_signed(self.wall_ahead_s);
        self.now = Now { monotonic: at, unix_s };
        if !self.holds_commits {
            self.maintain();
        }
        for shard in 0..self.engines.len() {
            if self.engines[shard].poll_timeout().is_some_and(|due| due <= at) {
                self.finish_turn(shard);
            }
        }
    }
}
