//! What we write for people and editors: the template, the schema, the example configs.

use super::*;

#[test]
fn the_template_is_right_as_it_is_and_with_its_comments_removed() {
    let key_file = "own.key".to_owned();
    let text = template(&Template {
        private_key_file: key_file,
        public_key: Some(OWN_PUBLIC.to_owned()),
        ..Template::default()
    });
    let config = accepted(&text);
    assert_eq!(config.interface.name, "overlay0");
    assert!(text.contains(OWN_PUBLIC));

    let is_config = |line: &&str| {
        line.starts_with("[[")
            || line.starts_with("[m")
            || line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let uncommented: Vec<_> =
        text.lines().map(|line| line.strip_prefix("# ").filter(is_config).unwrap_or(line)).collect();
    let filled =
        uncommented.join("\n").replace("\"...\"", &format!("{BOB:?}")).replace("/etc/overlay/bob.psk", "bob.psk");
    let config = accepted(&filled);
    assert_eq!((config.peers.len(), config.interface.fwmark), (1, Some(0x77)), "{filled}");
    assert!(config.metrics.is_some());
}

#[test]
fn the_reference_is_right_in_agent_mode_too() {
    let of_static_mode = |line: &&str| line.starts_with("private_key_file") || line.starts_with("addresses");
    let turned_on = |line| match str::strip_prefix(line, "#") {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
        _ => line,
    };
    let text = reference();
    let text: Vec<_> = text.lines().filter(|line| !of_static_mode(line)).map(turned_on).collect();
    let config = accepted(&text.join("\n").replace("/etc/overlay/bob.psk", "bob.psk"));
    let agent = config.agent.expect("[agent] is turned on");
    assert_eq!((agent.name.as_str(), agent.trust.len(), agent.services.len()), ("alice", 1, 2));
    assert!(config.interface.private_key.is_none() && config.interface.addresses.is_empty());
}

#[test]
fn every_example_config_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Every key file there is; the examples name those under /etc/overlay.
            let names = text.split('"').filter(|word| word.ends_with(".key") || word.ends_with(".psk"));
            let files: Vec<_> = names.map(|name| (name.to_owned(), Zeroizing::new(OWN.to_owned()))).collect();
            let config = Config::parse_with(&text, &path, &KeyFiles::Memory(&files));
            let config = config.unwrap_or_else(|error| panic!("{}", error.render(false)));
            assert!(config.warnings().is_empty(), "{path:?}: {:?}", config.warnings());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples");
}
