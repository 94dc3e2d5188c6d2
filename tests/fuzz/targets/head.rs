//! The request head: `protocol::request::parse`.

use wiresocket::protocol::request::{HeadError, HeadLimits, Status, parse};

pub fn run(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    // Small limits are met by small inputs.
    let limits = match first & 3 {
        0 => HeadLimits { head_bytes_max: 200, target_bytes_max: 60, headers_max: 5 },
        _ => HeadLimits::default(),
    };
    let whole = parse(bytes, &limits);
    match &whole {
        Ok(Status::Complete(head)) => {
            assert!(head.head_len <= bytes.len().min(limits.head_bytes_max));
            assert!(head.target.path().len() <= limits.target_bytes_max);
            assert_eq!(
                parse(&bytes[..head.head_len], &limits),
                whole,
                "what follows a head is no part of it"
            );
            assert_eq!(parse(&bytes[..head.head_len - 1], &limits), Ok(Status::Incomplete));
            if let Some(token) = head.upgrade.as_ref().and_then(|upgrade| upgrade.token.as_ref()) {
                assert!(!format!("{token:?}").contains(&*token.value) || token.value.len() < 20);
            }
        }
        Ok(Status::Incomplete) => {
            assert!(bytes.len() < limits.head_bytes_max, "a head over its limit waits on")
        }
        Err(error) => {
            let mut response = Vec::new();
            error.write_response(&mut response);
            assert!(
                response.starts_with(b"HTTP/1.1 4") && response.windows(4).any(|four| four == b"\r\n\r\n")
            );
        }
    }
    prefixes(bytes, usize::from(first >> 2), &limits, &whole);
}

/// However the bytes arrive: what was refused stays refused, and what is whole stays what it is.
fn prefixes(
    bytes: &[u8],
    cut: usize,
    limits: &HeadLimits,
    whole: &Result<Status<wiresocket::protocol::request::Head>, HeadError>,
) {
    let front = &bytes[..bytes.len() * cut / 64];
    match parse(front, limits) {
        Ok(Status::Incomplete) => {}
        Ok(complete) => assert_eq!(whole.as_ref(), Ok(&complete)),
        Err(_) => assert!(whole.is_err(), "a front that is refused belongs to a head that is"),
    }
}
