use proptest::prelude::*;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::*;

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 1 << 20, fragments_max: 64 };

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Binary(Vec<u8>),
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Message::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// A client's frame as tungstenite writes it: the reference that this module is tested against.
fn frame(opcode: OpCode, is_final: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { is_final, opcode, mask: Some(mask), ..FrameHeader::default() };
    let mut out = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut out).unwrap();
    out
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Data(Data::Binary), true, [1, 2, 3, 4], payload)
}

fn control(kind: Control, payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(kind), true, [9, 8, 7, 6], payload)
}

fn data(kind: Data, is_final: bool, payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Data(kind), is_final, [0xaa, 0, 0x55, 0xff], payload)
}

/// Feeds one read's worth of bytes and appends the messages.
fn feed(
    reader: &mut Reader,
    bytes: &[u8],
    limits: &FrameLimits,
    to: &mut Vec<Owned>,
) -> Result<(), FrameError> {
    let mut scratch = bytes.to_vec();
    let mut input = scratch.as_mut_slice();
    while let Some(message) = reader.next(&mut input, limits)? {
        to.push(message.into());
    }
    assert!(input.is_empty(), "None means that everything was consumed");
    Ok(())
}

fn read(bytes: &[u8]) -> Result<Vec<Owned>, FrameError> {
    let mut messages = Vec::new();
    feed(&mut Reader::new(), bytes, &LIMITS, &mut messages)?;
    Ok(messages)
}

/// One of everything: short and long frames, fragments with controls between them, text cut inside a character.
fn stream() -> (Vec<u8>, Vec<Owned>) {
    let long = (0..300u16).map(|n| n as u8).collect::<Vec<_>>();
    let bytes = [
        binary(b"one"),
        control(Control::Ping, b"hi"),
        binary(&long),
        data(Data::Text, false, "h\u{e9}".as_bytes().split_at(2).0),
        control(Control::Pong, b""),
        data(Data::Continue, false, b""),
        data(Data::Continue, true, "h\u{e9}llo".as_bytes().split_at(2).1),
        binary(b""),
        data(Data::Binary, false, b"ab"),
        data(Data::Continue, true, b"cd"),
        data(Data::Text, true, "gr\u{fc}n".as_bytes()),
        control(Control::Close, b"\x03\xe8bye"),
    ]
    .concat();
    let messages = vec![
        Owned::Binary(b"one".to_vec()),
        Owned::Ping(b"hi".to_vec()),
        Owned::Binary(long),
        Owned::Pong(vec![]),
        Owned::Text("h\u{e9}llo".to_owned()),
        Owned::Binary(vec![]),
        Owned::Binary(b"abcd".to_vec()),
        Owned::Text("gr\u{fc}n".to_owned()),
        Owned::Close(Some(1000), "bye".to_owned()),
    ];
    (bytes, messages)
}

#[test]
fn messages_do_not_depend_on_where_reads_split_them() {
    let (bytes, expected) = stream();
    for first in 0..=bytes.len() {
        for second in [first, first + 1, first + 7, bytes.len()] {
            let second = second.clamp(first, bytes.len());
            let (mut reader, mut messages) = (Reader::new(), Vec::new());
            for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                feed(&mut reader, part, &LIMITS, &mut messages).unwrap();
            }
            assert_eq!(messages, expected, "split at {first} and {second}");
            assert_eq!(reader.heap_bytes(), 0);
        }
    }
    let (mut reader, mut messages) = (Reader::new(), Vec::new());
    for byte in bytes {
        feed(&mut reader, &[byte], &LIMITS, &mut messages).unwrap();
    }
    assert_eq!(messages, expected);
}

#[test]
fn a_connection_is_handed_over_at_any_byte_and_after_any_message() {
    let (bytes, expected) = stream();
    for read_to in 0..=bytes.len() {
        for stop_after in 0..=expected.len() {
            let mut scratch = bytes[..read_to].to_vec();
            let mut input = scratch.as_mut_slice();
            let (mut reader, mut messages) = (Reader::new(), Vec::new());
            while messages.len() < stop_after
                && let Some(message) = reader.next(&mut input, &LIMITS).unwrap()
            {
                messages.push(message.into());
            }
            let mut unread = reader.into_unread(input);
            unread.extend_from_slice(&bytes[read_to..]);
            feed(&mut Reader::new(), &unread, &LIMITS, &mut messages).unwrap();
            assert_eq!(messages, expected, "read {read_to}, stopped after {stop_after}");
        }
    }
}

#[test]
fn a_whole_frame_is_yielded_where_it_lies() {
    let mut scratch = binary(b"payload");
    let range = scratch.as_ptr_range();
    let mut input = scratch.as_mut_slice();
    let mut reader = Reader::new();
    let Ok(Some(Message::Binary(payload))) = reader.next(&mut input, &LIMITS) else { panic!() };
    assert!(range.contains(&payload.as_ptr()));
    assert_eq!(reader.heap_bytes(), 0);
    assert!(size_of::<Reader>() <= 40);
}

#[test]
fn memory_follows_what_arrived_and_is_given_back() {
    let limits = FrameLimits { message_bytes_max: 100 << 20, fragments_max: 8 };
    let whole = binary(&vec![7; 64 << 20][..]);
    let (mut reader, mut messages) = (Reader::new(), Vec::new());
    feed(&mut reader, &whole[..20], &limits, &mut messages).unwrap();
    assert!(reader.heap_bytes() < 1024, "{}", reader.heap_bytes());
    for (n, part) in whole[20..].chunks(64 << 10).enumerate() {
        feed(&mut reader, part, &limits, &mut messages).unwrap();
        assert!(reader.heap_bytes() <= 2 * (20 + (n + 1) * (64 << 10)) + 1024);
    }
    assert_eq!(messages.len(), 1);
    assert_eq!(reader.heap_bytes(), 0);
}

#[test]
fn a_message_over_the_limit_ends_at_the_header_that_announces_it() {
    let limits = FrameLimits { message_bytes_max: 10, fragments_max: 8 };
    let mut messages = Vec::new();
    feed(&mut Reader::new(), &binary(&[0; 10]), &limits, &mut messages).unwrap();
    let over = binary(&[0; 11]);
    let too_big = Err(FrameError::TooBig { limit: 10 });
    assert_eq!(feed(&mut Reader::new(), &over[..6], &limits, &mut messages), too_big);
    let huge = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(feed(&mut Reader::new(), &huge, &limits, &mut messages), too_big);
    let fragments = [data(Data::Binary, false, &[0; 6]), data(Data::Continue, true, &[0; 5])].concat();
    assert_eq!(feed(&mut Reader::new(), &fragments[..18], &limits, &mut messages), too_big);
    assert_eq!(Refusal::from(FrameError::TooBig { limit: 10 }).code(), 1009);
}

#[test]
fn fragments_are_counted_even_when_empty() {
    let limits = FrameLimits { message_bytes_max: 1 << 20, fragments_max: 3 };
    let message = |count: usize| {
        let mut bytes = data(Data::Binary, false, b"");
        for _ in 2..count {
            bytes.extend(data(Data::Continue, false, b""));
        }
        bytes.extend(data(Data::Continue, true, b""));
        bytes
    };
    let mut messages = Vec::new();
    feed(&mut Reader::new(), &message(3), &limits, &mut messages).unwrap();
    assert_eq!(messages, [Owned::Binary(vec![])]);
    let error = feed(&mut Reader::new(), &message(4), &limits, &mut messages);
    assert_eq!(error, Err(FrameError::TooManyFragments { limit: 3 }));
    let none = FrameLimits { fragments_max: 0, ..limits };
    feed(&mut Reader::new(), &binary(b"x"), &none, &mut messages).unwrap();
    assert!(feed(&mut Reader::new(), &message(2), &none, &mut messages).is_err());
}

#[test]
fn limits_may_grow_between_messages() {
    let small = FrameLimits { message_bytes_max: 4, fragments_max: 8 };
    let (mut reader, mut messages) = (Reader::new(), Vec::new());
    feed(&mut reader, &binary(b"auth"), &small, &mut messages).unwrap();
    feed(&mut reader, &binary(b"content"), &LIMITS, &mut messages).unwrap();
    assert_eq!(messages.len(), 2);
}

#[test]
fn what_the_protocol_forbids_is_refused() {
    let masked = |first: u8, second: u8| vec![first, second | 0x80, 0, 0, 0, 0];
    let unexpected = [data(Data::Binary, false, b"a"), binary(b"b")].concat();
    let restarted = [binary(b"a"), data(Data::Continue, true, b"b")].concat();
    let table: Vec<(&str, Vec<u8>, FrameError)> = vec![
        ("not masked", vec![0x82, 0], FrameError::Unmasked),
        ("rsv1", masked(0xc2, 0), FrameError::ReservedBit),
        ("rsv2", masked(0xa2, 0), FrameError::ReservedBit),
        ("rsv3", masked(0x92, 0), FrameError::ReservedBit),
        ("opcode 3", masked(0x83, 0), FrameError::ReservedOpcode),
        ("opcode 11", masked(0x8b, 0), FrameError::ReservedOpcode),
        ("fragmented ping", masked(0x09, 0), FrameError::FragmentedControl),
        ("long ping", control(Control::Ping, &[0; 126]), FrameError::LongControl),
        ("continuation first", masked(0x80, 0), FrameError::UnexpectedContinuation),
        ("continuation after a whole message", restarted, FrameError::UnexpectedContinuation),
        ("new message inside one", unexpected, FrameError::UnfinishedMessage),
        ("close of one byte", control(Control::Close, b"\x03"), FrameError::InvalidClose),
        ("close reason not UTF-8", control(Control::Close, b"\x03\xe8\xff"), FrameError::Utf8),
        ("text not UTF-8", data(Data::Text, true, b"\xce\xba\xed\xa0\x80"), FrameError::Utf8),
        ("text cut", data(Data::Text, true, b"\xce"), FrameError::Utf8),
        ("text fragment not UTF-8", data(Data::Text, false, b"ok\xff"), FrameError::Utf8),
    ];
    for (name, bytes, error) in table {
        assert_eq!(read(&bytes), Err(error), "{name}");
        let (mut reader, mut messages) = (Reader::new(), Vec::new());
        let each = bytes.iter().try_for_each(|&byte| feed(&mut reader, &[byte], &LIMITS, &mut messages));
        assert_eq!(each, Err(error), "{name}, byte by byte");
    }
    let cut_at_the_end = [data(Data::Text, false, b"a\xce"), data(Data::Continue, true, b"")].concat();
    assert_eq!(read(&cut_at_the_end), Err(FrameError::Utf8));
}

#[test]
fn close_codes_are_those_that_may_travel() {
    let code = |code: u16| read(&control(Control::Close, &code.to_be_bytes()));
    for allowed in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(code(allowed), Ok(vec![Owned::Close(Some(allowed), String::new())]));
    }
    for refused in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(code(refused), Err(FrameError::InvalidClose), "{refused}");
    }
    assert_eq!(read(&control(Control::Close, b"")), Ok(vec![Owned::Close(None, String::new())]));
}

#[test]
fn errors_close_with_the_codes_of_the_rfc() {
    assert_eq!(Refusal::from(FrameError::Unmasked).code(), 1002);
    assert_eq!(Refusal::from(FrameError::Utf8).code(), 1007);
    assert_eq!(Refusal::from(FrameError::TooManyFragments { limit: 1 }).code(), 1009);
}

#[test]
fn what_is_written_is_what_a_client_reads() {
    for length in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
        let payload = vec![3; length];
        let mut out = Vec::new();
        write_binary(&mut out, &payload);
        assert_eq!(out.len(), binary_header_len(length) + length);
        let mut cursor = Cursor::new(&out);
        let (header, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert_eq!((header.opcode, header.is_final, header.mask), (OpCode::Data(Data::Binary), true, None));
        assert_eq!((read, cursor.position() as usize), (length as u64, binary_header_len(length)));
    }
    let mut out = Vec::new();
    write_close(&mut out, 4002, &"\u{e9}".repeat(100));
    assert_eq!(out[..4], [0x88, 124, 0x0f, 0xa2]);
    assert!(std::str::from_utf8(&out[4..]).is_ok() && out.len() == 2 + 124);
    out.clear();
    write_ping(&mut out, &[1; 200]);
    write_pong(&mut out, b"x");
    write_empty_close(&mut out);
    assert_eq!(out[..2], [0x89, 125]);
    assert_eq!(out[127..], [0x8a, 1, b'x', 0x88, 0]);
}

#[test]
fn the_accept_key_is_that_of_the_rfc() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/// A message, cut into fragments of random sizes, with a ping between some of them.
fn any_message() -> impl Strategy<Value = (Vec<u8>, Vec<Owned>)> {
    let text = ".{0,40}".prop_map(|text: String| (Data::Text, text.into_bytes()));
    let bytes = proptest::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| (Data::Binary, bytes));
    let cuts = proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..4);
    (prop_oneof![text, bytes], cuts, any::<[u8; 4]>()).prop_map(|((kind, payload), cuts, mask)| {
        let mut at = cuts.iter().map(|(cut, _)| cut.index(payload.len() + 1)).collect::<Vec<_>>();
        at.sort_unstable();
        let (mut wire, mut expected, mut start) = (Vec::new(), Vec::new(), 0);
        for (n, (end, (_, ping))) in at.iter().zip(&cuts).enumerate() {
            let opcode = if n == 0 { kind } else { Data::Continue };
            wire.extend(frame(OpCode::Data(opcode), false, mask, &payload[start..*end]));
            start = *end;
            if *ping {
                wire.extend(frame(OpCode::Control(Control::Ping), true, mask, &[n as u8]));
                expected.push(Owned::Ping(vec![n as u8]));
            }
        }
        let opcode = if cuts.is_empty() { kind } else { Data::Continue };
        wire.extend(frame(OpCode::Data(opcode), true, mask, &payload[start..]));
        expected.push(match kind {
            Data::Text => Owned::Text(String::from_utf8(payload).unwrap()),
            _ => Owned::Binary(payload),
        });
        (wire, expected)
    })
}

proptest! {
    #[test]
    fn tungstenites_frames_are_read_however_they_arrive(
        messages in proptest::collection::vec(any_message(), 1..5),
        reads in proptest::collection::vec(1usize..200, 1..40),
    ) {
        let (wire, expected): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let (wire, expected) = (wire.concat(), expected.concat());
        let (mut reader, mut got, mut at) = (Reader::new(), Vec::new(), 0);
        for read in reads.iter().cycle() {
            let end = (at + read).min(wire.len());
            feed(&mut reader, &wire[at..end], &LIMITS, &mut got).unwrap();
            at = end;
            if at == wire.len() {
                break;
            }
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(reader.heap_bytes(), 0);
    }

    #[test]
    fn any_bytes_are_read_or_refused_alike_whole_and_cut(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0x8b], 0..120),
        cut in any::<proptest::sample::Index>(),
    ) {
        let at = cut.index(bytes.len() + 1);
        let mut whole = Vec::new();
        let whole_result = feed(&mut Reader::new(), &bytes, &LIMITS, &mut whole);
        let (mut reader, mut parts) = (Reader::new(), Vec::new());
        let result = feed(&mut reader, &bytes[..at], &LIMITS, &mut parts)
            .and_then(|()| feed(&mut reader, &bytes[at..], &LIMITS, &mut parts));
        prop_assert_eq!(whole_result, result);
        prop_assert_eq!(whole, parts);
    }
}
