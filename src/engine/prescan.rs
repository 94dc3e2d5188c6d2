//! placeholder until the scanner is merged
#[derive(Debug, Default)]
pub struct Scan { ranges: Vec<Range> }
#[derive(Debug, Clone, Copy)]
pub struct Range { pub client: u64, pub start: u32, pub end: u32 }
#[derive(Debug, Default)]
pub struct ScanLimits {}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ScanError;
pub fn scan(_u: &[u8], _l: &ScanLimits, _o: &mut Scan) -> Result<(), ScanError> { Ok(()) }
impl Scan {
    pub fn missing(&self, _s: impl Fn(u64) -> u32) -> Option<(u64, u32)> { None }
    pub fn is_known(&self, _s: impl Fn(u64) -> u32) -> bool { false }
    pub fn has_deletes(&self) -> bool { true }
    pub fn ranges(&self) -> &[Range] { &self.ranges }
}
