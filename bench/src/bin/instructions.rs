//! Runs one path so often, for callgrind to count: `instructions NAME COUNT`. Without arguments: the names, and how
//! many operations a run of each has. bench/instructions.py drives it.

use std::env::args;
use std::process::ExitCode;

use wiresocket_bench::paths::{Case, PATHS};

/// What callgrind looks at (`--toggle-collect`): nothing that prepares or drops a case is in here.
#[inline(never)]
fn measured(case: &mut Case) {
    case();
}

fn main() -> ExitCode {
    let arguments: Vec<String> = args().skip(1).collect();
    let [name, count] = arguments.as_slice() else {
        for path in PATHS {
            println!("{}\t{}", path.operations, path.name);
        }
        return ExitCode::SUCCESS;
    };
    let (Some(path), Ok(count)) = (PATHS.iter().find(|path| path.name == name), count.parse::<u32>()) else {
        eprintln!("usage: instructions NAME COUNT; without arguments it lists the names");
        return ExitCode::from(2);
    };
    let mut prepared = (path.prepare)();
    for _ in 0..count {
        let mut case = prepared();
        measured(&mut case);
    }
    ExitCode::SUCCESS
}
