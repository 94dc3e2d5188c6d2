//! An input of several steps: each an operation, a length of two bytes, and so many bytes. Lenient, so that most
//! mutations still mean something.

pub struct Steps<'a>(pub &'a [u8]);

impl<'a> Iterator for Steps<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[operation, low, high], rest) = self.0.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        self.0 = rest;
        Some((operation, payload))
    }
}

/// Appends a step, for seeds.
pub fn write(out: &mut Vec<u8>, operation: u8, payload: &[u8]) {
    let length = u16::try_from(payload.len()).expect("a step has less than 64 KiB");
    out.push(operation);
    out.extend(length.to_le_bytes());
    out.extend_from_slice(payload);
}
