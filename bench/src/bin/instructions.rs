//! Runs one path so often, for callgrind to count: `instructions NAME COUNT`. Without arguments: the names, and how
//! many operations a run of each has. `instructions --key FILE` makes a private key, which further runs take from the
//! file that WIRESOCKET_BENCH_KEY names. bench/instructions.py drives it.

use std::env::{args, var_os};
use std::error::Error;
use std::fs;
use std::process::ExitCode;

use wiresocket_bench::paths::{Case, PATHS};
use wiresocket_bench::{key, use_key};

/// What callgrind looks at (`--toggle-collect`): nothing that prepares or drops a case is in here.
#[inline(never)]
fn measured(case: &mut Case) {
    case();
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(file) = var_os("WIRESOCKET_BENCH_KEY") {
        use_key(&fs::read_to_string(file)?);
    }
    let arguments: Vec<String> = args().skip(1).collect();
    match arguments.as_slice() {
        [] => PATHS.iter().for_each(|path| println!("{}\t{}", path.operations, path.name)),
        [option, file] if option == "--key" => fs::write(file, key().to_pkcs8_pem()?)?,
        [name, count]
            if let (Some(path), Ok(count)) = (PATHS.iter().find(|path| path.name == name), count.parse()) =>
        {
            run((path.prepare)(), count);
        }
        _ => {
            eprintln!("usage: instructions [NAME COUNT | --key FILE]; without arguments it lists the names");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(mut prepared: Box<dyn FnMut() -> Case>, count: u32) {
    // What happens only the first time isn't measured.
    prepared()();
    for _ in 0..count {
        let mut case = prepared();
        measured(&mut case);
    }
}
