//! The configuration: `config::parse`, any text.

use wiresocket::config::{effective_toml, parse};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text, "file", []) {
        Ok(config) => {
            let printed = effective_toml(&config);
            let again = parse(&printed, "printed", []).unwrap_or_else(|problems| {
                panic!("what is printed is no configuration: {problems}\n{printed}");
            });
            let plain = |text: &str| {
                text.lines()
                    .map(|line| line.split(" # ").next().unwrap_or(line).to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(plain(&effective_toml(&again)), plain(&printed));
            let _ = config.warnings();
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            assert!(problems.0.iter().all(|problem| !problem.message.is_empty()));
            let _ = problems.to_string();
        }
    }
}
