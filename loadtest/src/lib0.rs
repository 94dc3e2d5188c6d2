//! The two encodings everything Yjs sends is made of: variable-length unsigned integers and byte
//! strings prefixed by one.
//!
//! Reading never allocates and never trusts a length: whatever does not fit in the bytes that are
//! there is [`Malformed`]. Signed integers exist only to be skipped (their bytes end the same way).

use thiserror::Error;

/// Bytes that are not what the protocol says. `at` counts from the start of the buffer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed bytes at offset {at}: {what}")]
pub struct Malformed {
    pub at: usize,
    pub what: &'static str,
}

/// Appends `value`, seven bits a byte, least significant first.
#[inline]
pub fn write_varuint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes [`write_varuint`] takes for `value`.
#[inline]
pub fn varuint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[inline]
pub fn write_var_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varuint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A cursor over borrowed bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error at the place this reader has come to.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.malformed("ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub fn varuint(&mut self) -> Result<u64, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            if shift > 63 || (shift == 63 && byte > 1) {
                return Err(self.malformed("integer of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A variable-length integer that Yjs keeps within 32 bits: a clock or a count.
    #[inline]
    pub fn clock(&mut self) -> Result<u32, Malformed> {
        let value = self.varuint()?;
        u32::try_from(value).map_err(|_| self.malformed("clock or length of more than 32 bits"))
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.remaining() {
            return Err(self.malformed("length runs past the end"));
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    #[inline]
    pub fn var_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varuint()?;
        let len = usize::try_from(len).map_err(|_| self.malformed("length runs past the end"))?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_survive_the_round_trip(value: u64) {
            let mut out = Vec::new();
            write_varuint(&mut out, value);
            prop_assert_eq!(out.len(), varuint_len(value));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varuint(), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.var_bytes().is_ok() && !reader.is_empty() {}
        }
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        assert!(Reader::new(&[5, 1, 2]).var_bytes().is_err());
        assert!(Reader::new(&[0xff; 11]).varuint().is_err());
    }
}
