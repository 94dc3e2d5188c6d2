//! A disk for tests: it forgets what was not synced when the power goes, tears what was being written, and fails when
//! told to.

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
    creates: usize,
    removes: usize,
}

impl Memory {
    pub fn with(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// The power goes: of what was not synced, this much of each segment's is there.
    #[must_use]
    pub fn after_power_cut(&self, mut kept: impl FnMut(usize) -> usize) -> Self {
        let mut after = Self::default();
        for (&number, segment) in &self.segments {
            let mut segment = segment.clone();
            segment.synced = segment.synced.min(segment.bytes.len());
            let unsynced = segment.bytes.len() - segment.synced;
            segment.bytes.truncate(segment.synced + kept(unsynced).min(unsynced));
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

    fn newest(&mut self) -> io::Result<&mut Segment> {
        let newest = self.newest.ok_or(io::ErrorKind::NotFound)?;
        self.segments.get_mut(&newest).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const fn counted(count: &mut usize) -> usize {
    *count += 1;
    *count - 1
}

impl Storage for Memory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.numbers())
    }

    fn create(&mut self, segment: u64) -> io::Result<()> {
        if self.faults.create == Some(counted(&mut self.creates)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(self.segments.insert(segment, Segment::default()).is_none(), "a segment is made once");
        self.newest = Some(segment);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let call = counted(&mut self.appends);
        let fails = self.faults.append.filter(|(at, _)| *at == call);
        let written = fails.map_or(bytes.len(), |(_, written)| written.min(bytes.len()));
        self.newest()?.bytes.extend_from_slice(&bytes[..written]);
        if fails.is_some() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.faults.sync == Some(counted(&mut self.syncs)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if !self.faults.lies {
            let newest = self.newest()?;
            newest.synced = newest.bytes.len();
            newest.named = true;
        }
        Ok(())
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        let segment = self.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        Ok(segment.bytes.clone())
    }

    fn read_at(&mut self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let segment = self.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let piece = segment.bytes.get(offset as usize..offset as usize + length);
        Ok(piece.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()> {
        let segment = self.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        segment.bytes.truncate(length as usize);
        segment.synced = segment.bytes.len();
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        if self.faults.remove == Some(counted(&mut self.removes)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.segments.remove(&segment);
        Ok(())
    }

    fn name(&self, segment: u64) -> String {
        format!("segment {segment}")
    }
}
