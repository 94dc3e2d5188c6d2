//! A disk for tests: it forgets what was not synced when the power goes, tears what was being written, and fails or lets
//! its process die when told to.

use std::collections::BTreeMap;
use std::io;

use super::storage::Storage;

#[derive(Debug, Clone, Default)]
struct Segment {
    bytes: Vec<u8>,
    synced: usize,
    /// Its name is on disk.
    named: bool,
}

/// What goes wrong, and at which call, counted from 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Only so many bytes of this append are written, then the disk is full.
    pub append: Option<(usize, usize)>,
    pub sync: Option<usize>,
    pub create: Option<usize>,
    pub remove: Option<usize>,
    pub read: Option<usize>,
    /// In this call, of whatever kind, the process comes to its end; so much of it is done, in bytes, or if that is odd.
    pub death: Option<(usize, usize)>,
    /// A sync says that it worked, and did nothing.
    pub lies: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Memory {
    segments: BTreeMap<u64, Segment>,
    newest: Option<u64>,
    pub faults: Faults,
    pub appends: usize,
    pub syncs: usize,
    pub creates: usize,
    pub removes: usize,
    pub reads: usize,
    pub calls: usize,
    dead: bool,
}

impl Memory {
    pub fn with(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// The power goes: of what was not synced, this much of each segment's is there.
    #[must_use]
    pub fn after_power_cut(&self, mut kept: impl FnMut(usize) -> usize) -> Self {
        self.after_tearing(|unsynced| unsynced.truncate(kept(unsynced.len())))
    }

    /// The power goes, and this becomes of what was not synced of each segment.
    #[must_use]
    pub fn after_tearing(&self, mut tear: impl FnMut(&mut Vec<u8>)) -> Self {
        let mut after = Self::default();
        for (&number, segment) in &self.segments {
            let mut segment = segment.clone();
            segment.synced = segment.synced.min(segment.bytes.len());
            let mut unsynced = segment.bytes.split_off(segment.synced);
            tear(&mut unsynced);
            segment.bytes.append(&mut unsynced);
            segment.synced = segment.bytes.len();
            if segment.named || segment.synced > 0 {
                after.segments.insert(number, Segment { named: true, ..segment });
            }
        }
        after
    }

    /// The process is killed: the kernel has all that was written, and the disk what was synced.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        Self { segments: self.segments.clone(), ..Self::default() }
    }

    pub fn bytes_mut(&mut self, segment: u64) -> &mut Vec<u8> {
        &mut self.segments.get_mut(&segment).expect("a segment that is").bytes
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }

    pub fn total_bytes(&self) -> usize {
        self.segments.values().map(|segment| segment.bytes.len()).sum()
    }

    /// A process died in one of the calls.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    fn reads_again(&mut self) -> io::Result<()> {
        alive(self.last_words()?.is_none())?;
        if self.faults.read == Some(counted(&mut self.reads)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// How much of this call is done, if it is the process's last.
    fn last_words(&mut self) -> io::Result<Option<usize>> {
        if self.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let call = counted(&mut self.calls);
        let death = self.faults.death.filter(|(at, _)| *at == call);
        self.dead = death.is_some();
        Ok(death.map(|(_, done)| done))
    }

    /// The same, for a call that is done or not.
    fn survives(&mut self) -> io::Result<bool> {
        match self.last_words()? {
            Some(done) if done % 2 == 0 => Err(io::ErrorKind::BrokenPipe.into()),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    fn newest(&mut self) -> io::Result<&mut Segment> {
        let newest = self.newest.ok_or(io::ErrorKind::NotFound)?;
        self.segments.get_mut(&newest).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const fn counted(count: &mut usize) -> usize {
    *count += 1;
    *count - 1
}

fn alive(is: bool) -> io::Result<()> {
    if is { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Lent to a process that will die while it opens its journal.
impl Storage for &mut Memory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        (**self).segments()
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        (**self).create(segment)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        (**self).read(segment)
    }

    fn read_at(&mut self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        (**self).read_at(segment, offset, length)
    }

    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()> {
        (**self).truncate(segment, length)
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        (**self).remove(segment)
    }

    fn name(&self, segment: u64) -> String {
        (**self).name(segment)
    }
}

impl Storage for Memory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.numbers())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        let survives = self.survives()?;
        if self.faults.create == Some(counted(&mut self.creates)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(self.segments.insert(segment, Segment::default()).is_none(), "a segment is made once");
        self.newest = Some(segment);
        alive(survives)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let dies = self.last_words()?;
        let call = counted(&mut self.appends);
        let fails = self.faults.append.filter(|(at, _)| *at == call);
        let fails = fails.or(dies.map(|written| (call, written)));
        let written = fails.map_or(bytes.len(), |(_, written)| written.min(bytes.len()));
        self.newest()?.bytes.extend_from_slice(&bytes[..written]);
        if fails.is_some() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let survives = self.survives()?;
        if self.faults.sync == Some(counted(&mut self.syncs)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if !self.faults.lies {
            let newest = self.newest()?;
            newest.synced = newest.bytes.len();
            newest.named = true;
        }
        alive(survives)
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        self.reads_again()?;
        let segment = self.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        Ok(segment.bytes.clone())
    }

    fn read_at(&mut self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.reads_again()?;
        let segment = self.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let piece = segment.bytes.get(offset as usize..offset as usize + length);
        Ok(piece.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()> {
        let survives = self.survives()?;
        let segment = self.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        segment.bytes.truncate(length as usize);
        segment.synced = segment.bytes.len();
        alive(survives)
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        let survives = self.survives()?;
        if self.faults.remove == Some(counted(&mut self.removes)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.segments.remove(&segment);
        alive(survives)
    }

    fn name(&self, segment: u64) -> String {
        format!("segment {segment}")
    }
}
