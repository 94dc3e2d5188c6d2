#![no_main]

#[path = "../cost.rs"]
mod cost;
#[path = "../targets/mod.rs"]
mod targets;
#[path = "../watch.rs"]
mod watch;

libfuzzer_sys::fuzz_target!(|data: &[u8]| watch::run("proxy", targets::proxy::run, data));
