//! The time of each path. `make bench` prints them; figures are for all operations of a run (`elem/s` counts each).

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wiresocket_bench::paths::PATHS;

fn hot_paths(criterion: &mut Criterion) {
    for path in PATHS {
        let mut group = criterion.benchmark_group(path.name);
        group.throughput(Throughput::Elements(path.operations.into()));
        let mut prepared = None;
        group.bench_function("run", |b| {
            // Only if the filter lets it run.
            let case = prepared.get_or_insert_with(path.prepare);
            b.iter_batched_ref(&mut *case, |case| case(), BatchSize::PerIteration);
        });
        group.finish();
    }
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
