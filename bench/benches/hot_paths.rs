//! The paths that run for every message and every handshake. `make bench` prints the time of each.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;
use wiresocket::auth::Limits;
use wiresocket::engine::document::Document;
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use wiresocket::limits::{Claim, Ledger};
use wiresocket::protocol::document::AppId;
use wiresocket::protocol::message::{Framing, Message};
use wiresocket::protocol::websocket::{FrameLimits, Reader};
use wiresocket_bench::{client_frame, state, tokens, typing};

const DOCUMENT_BYTES_MAX: usize = 1 << 30;

fn wire(criterion: &mut Criterion) {
    let update = typing(2).pop().expect("two updates");
    let frame = client_frame(&update);
    let limits = FrameLimits { message_bytes_max: 1 << 20, fragments_max: 16 };
    criterion.bench_function("frame: parse and unmask a small one", |b| {
        b.iter_batched_ref(
            || frame.clone(),
            |frame| {
                let mut reader = Reader::new();
                let mut input = frame.as_mut_slice();
                black_box(reader.next(&mut input, &limits)).is_ok()
            },
            BatchSize::SmallInput,
        );
    });
    let message: Vec<u8> = [0, 2, update.len() as u8].into_iter().chain(update.iter().copied()).collect();
    criterion.bench_function("message: parse an update", |b| b.iter(|| Message::parse(black_box(&message))));
    criterion.bench_function("message: encode an update for relaying", |b| {
        let mut out = Vec::with_capacity(256);
        b.iter(|| {
            out.clear();
            Framing::YWebsocket.update(&mut out, black_box(&update));
        });
    });
}

fn documents(criterion: &mut Criterion) {
    let updates = typing(20_000);
    let small = &updates[1];
    let mut found = Scan::default();
    criterion.bench_function("pre-scan: one character", |b| {
        b.iter(|| scan(black_box(small), &ScanLimits::default(), &mut found));
    });
    let mut group = criterion.benchmark_group("apply 1,000 single characters");
    group.throughput(Throughput::Elements(1000));
    for run in [0, 10_000, 19_000] {
        group.bench_function(format!("behind a run of {run}"), |b| {
            b.iter_batched_ref(
                || document_of(&updates[..run]),
                |document| apply_all(document, &updates[run..run + 1000]),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn document_of(updates: &[Vec<u8>]) -> Document {
    let mut document = Document::default();
    if !updates.is_empty() {
        apply_all(&mut document, &[state(updates)]);
    }
    document
}

fn apply_all(document: &mut Document, updates: &[Vec<u8>]) {
    let mut found = Scan::default();
    for update in updates {
        scan(update, &ScanLimits::default(), &mut found).expect("genuine");
        document.apply(update, &found, DOCUMENT_BYTES_MAX).expect("it applies");
    }
}

fn handshakes(criterion: &mut Criterion) {
    let (mut verifier, tokens) = tokens(20_000);
    let now = 1_900_000_000;
    criterion
        .bench_function("token: seen before", |b| b.iter(|| verifier.verify(now, black_box(&tokens[0]))));
    let mut different = tokens.iter().cycle();
    criterion.bench_function("token: never seen", |b| {
        b.iter(|| verifier.verify(now, black_box(different.next().expect("a cycle"))));
    });
    let app = AppId { tenant: Uuid::from_u128(1), app: Uuid::from_u128(2) };
    let limits = Limits {
        connections_max: 1000,
        documents_max: 1000,
        users_per_document_max: 1000,
        ops_per_minute: 1000,
    };
    let claim = Claim { app, connection: true, document: Some(7) };
    let mut ledger = Ledger::new();
    criterion.bench_function("ledger: claim and release", |b| {
        b.iter(|| {
            ledger.reserve(black_box(claim), limits).expect("there is room");
            ledger.release(claim);
        });
    });
}

criterion_group!(hot_paths, wire, documents, handshakes);
criterion_main!(hot_paths);
