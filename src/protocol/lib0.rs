//! The lib0 encoding that all Yjs protocols are written in: variable-length integers, and bytes and strings with
//! their length in front.
//!
//! Invariants: a [`Reader`] never allocates, never reads past its bytes, and yields slices of what it was given. A
//! length is compared with the bytes that remain before anything is done with it.
//!
//! Not here: the `Any` values and blocks inside an update (`engine::prescan`).

/// The greatest integer that JavaScript's encoder writes and its decoder accepts: `Number.MAX_SAFE_INTEGER`.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// The longest spelling of an integer that is read. Eight bytes hold [`INTEGER_MAX`]; more are leading zeros.
const VAR_BYTES_MAX: usize = 10;

/// Why bytes are not lib0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lib0Error {
    #[error("the bytes end in the middle of a value")]
    Truncated,
    #[error("an integer is written in more than 10 bytes")]
    Overlong,
    #[error("an integer is above what its place allows")]
    OutOfRange,
    #[error("a length is greater than the bytes that follow it")]
    LengthPastEnd,
    #[error("a string is not UTF-8")]
    Utf8,
}

/// Reads values from the front of a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that were not read yet.
    #[must_use]
    pub const fn remaining(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Lib0Error::Truncated`] at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Lib0Error> {
        let (&first, rest) = self.bytes.split_first().ok_or(Lib0Error::Truncated)?;
        self.bytes = rest;
        Ok(first)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Lib0Error::Truncated`] if fewer remain.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Lib0Error> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Lib0Error::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An unsigned integer up to [`INTEGER_MAX`].
    ///
    /// # Errors
    /// [`Lib0Error`] if it is cut off, longer than 10 bytes or above the maximum.
    #[inline]
    pub fn var_u64(&mut self) -> Result<u64, Lib0Error> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.var_u64_rest(u64::from(first & 0x7f))
    }

    fn var_u64_rest(&mut self, mut value: u64) -> Result<u64, Lib0Error> {
        for place in 1..VAR_BYTES_MAX {
            let byte = self.byte()?;
            let digits = u64::from(byte & 0x7f);
            // Above 2^63 the shift would lose bits; from the ninth byte on, only zeros keep the value in range.
            if place > 7 && digits != 0 {
                return Err(Lib0Error::OutOfRange);
            }
            value |= digits << (7 * place.min(8));
            if byte < 0x80 {
                return if value <= INTEGER_MAX { Ok(value) } else { Err(Lib0Error::OutOfRange) };
            }
        }
        Err(Lib0Error::Overlong)
    }

    /// An unsigned integer that must fit 32 bits.
    ///
    /// # Errors
    /// As [`Reader::var_u64`], with the smaller maximum.
    #[inline]
    pub fn var_u32(&mut self) -> Result<u32, Lib0Error> {
        u32::try_from(self.var_u64()?).map_err(|_| Lib0Error::OutOfRange)
    }

    /// Bytes with their length in front.
    ///
    /// # Errors
    /// [`Lib0Error::LengthPastEnd`] if the length is greater than what remains.
    #[inline]
    pub fn var_bytes(&mut self) -> Result<&'a [u8], Lib0Error> {
        let length = self.var_u64()?;
        let length = usize::try_from(length).map_err(|_| Lib0Error::LengthPastEnd)?;
        self.take(length).map_err(|_| Lib0Error::LengthPastEnd)
    }

    /// A UTF-8 string with its length in bytes in front.
    ///
    /// # Errors
    /// As [`Reader::var_bytes`], and [`Lib0Error::Utf8`].
    #[inline]
    pub fn var_str(&mut self) -> Result<&'a str, Lib0Error> {
        std::str::from_utf8(self.var_bytes()?).map_err(|_| Lib0Error::Utf8)
    }
}

/// Appends an unsigned integer.
#[inline]
pub fn write_var_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes with their length in front.
#[inline]
pub fn write_var_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_var_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a string with its length in bytes in front.
#[inline]
pub fn write_var_str(out: &mut Vec<u8>, text: &str) {
    write_var_bytes(out, text.as_bytes());
}

/// How many bytes [`write_var_u64`] appends.
#[inline]
#[must_use]
pub const fn var_u64_len(value: u64) -> usize {
    // Zero takes one byte, like one.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// How many bytes [`write_var_bytes`] or [`write_var_str`] append for content of `length` bytes.
#[inline]
#[must_use]
pub const fn var_bytes_len(length: usize) -> usize {
    var_u64_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_beyond_what_javascript_can_write_are_refused() {
        let mut bytes = Vec::new();
        write_var_u64(&mut bytes, INTEGER_MAX);
        assert_eq!(Reader::new(&bytes).var_u64(), Ok(INTEGER_MAX));
        for value in [INTEGER_MAX + 1, 1 << 56, 1 << 63, u64::MAX] {
            let mut bytes = Vec::new();
            write_var_u64(&mut bytes, value);
            assert_eq!(Reader::new(&bytes).var_u64(), Err(Lib0Error::OutOfRange), "{value}");
        }
    }

    #[test]
    fn leading_zeros_are_read_up_to_ten_bytes() {
        let mut bytes = vec![0x81];
        bytes.extend([0x80; 8]);
        bytes.push(0);
        assert_eq!(Reader::new(&bytes).var_u64(), Ok(1));
        bytes.insert(1, 0x80);
        assert_eq!(Reader::new(&bytes).var_u64(), Err(Lib0Error::Overlong));
        assert_eq!(Reader::new(&[0xff; 64]).var_u64(), Err(Lib0Error::OutOfRange));
    }

    #[test]
    fn a_u32_does_not_wrap() {
        let mut bytes = Vec::new();
        write_var_u64(&mut bytes, u64::from(u32::MAX) + 1);
        assert_eq!(Reader::new(&bytes).var_u32(), Err(Lib0Error::OutOfRange));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).var_u32(), Ok(u32::MAX));
    }

    #[test]
    fn a_length_is_checked_against_what_remains() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0x7a, 1]).var_bytes(), Err(Lib0Error::LengthPastEnd));
        assert_eq!(Reader::new(&[3, 1, 2]).var_bytes(), Err(Lib0Error::LengthPastEnd));
        let mut reader = Reader::new(&[2, 1, 2, 9]);
        assert_eq!(reader.var_bytes(), Ok(&[1, 2][..]));
        assert_eq!(reader.remaining(), [9]);
    }

    #[test]
    fn a_string_must_be_utf8() {
        assert_eq!(Reader::new(&[2, 0xc3, 0xa9]).var_str(), Ok("é"));
        assert_eq!(Reader::new(&[2, 0xc3, 0x28]).var_str(), Err(Lib0Error::Utf8));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            number in 0..=INTEGER_MAX,
            small in any::<u32>(),
            text in ".*",
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut out = Vec::new();
            write_var_u64(&mut out, number);
            prop_assert_eq!(out.len(), var_u64_len(number));
            write_var_u64(&mut out, u64::from(small));
            let before = out.len();
            write_var_str(&mut out, &text);
            prop_assert_eq!(out.len() - before, var_bytes_len(text.len()));
            write_var_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.var_u64(), Ok(number));
            prop_assert_eq!(reader.var_u32(), Ok(small));
            prop_assert_eq!(reader.var_str(), Ok(text.as_str()));
            prop_assert_eq!(reader.var_bytes(), Ok(bytes.as_slice()));
            prop_assert!(reader.is_empty());
            for end in 0..out.len() {
                let mut cut = Reader::new(&out[..end]);
                let all = cut.var_u64().and_then(|_| cut.var_u32()).and_then(|_| cut.var_str())
                    .and_then(|_| cut.var_bytes());
                prop_assert!(all.is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(text) = reader.var_str() {
                prop_assert!(text.len() <= bytes.len());
            }
        }
    }
}
