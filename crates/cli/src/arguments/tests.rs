//! Command lines that are accepted, and the messages for those that are not.

use super::*;

fn refused(line: &[&str]) -> Failure {
    let error = Arguments::try_parse_from(line).expect_err("a command line that is wrong");
    failure(&error, &line.iter().map(OsString::from).collect::<Vec<_>>())
}

fn taken(line: &[&str]) -> Arguments {
    Arguments::try_parse_from(line).expect("a command line that is right")
}

#[test]
fn the_description_is_consistent() {
    command().debug_assert();
}

#[test]
fn a_wrong_command_line_is_a_usage_failure_with_the_nearest_word() {
    let cases: [(&[&str], &str, &str); 11] = [
        (&["overlay"], "no verb was given", "overlay --help"),
        (
            &["overlay", "key"],
            "no verb was given after `overlay key`",
            "overlay key gen, overlay key pub or overlay key psk",
        ),
        (
            &["overlay", "--json", "config"],
            "no verb was given after `overlay config`",
            "overlay config init, overlay config check or overlay config schema",
        ),
        (&["overlay", "statsu"], "unrecognized subcommand `statsu`", "did you mean `status`?"),
        (&["overlay", "status", "--jsno"], "unexpected argument `--jsno` found", "did you mean `--json`?"),
        (&["overlay", "stat"], "unrecognized subcommand `stat`", "did you mean `status`?"),
        (&["overlay", "ping"], "the following required arguments were not provided: <PEER|IP>", "overlay ping --help"),
        (
            &["overlay", "ping", "bob", "-i", "0"],
            "invalid value `0` for `--interval <SECONDS>`: give seconds between 0.001 and 86400",
            "overlay ping --help",
        ),
        (
            &["overlay", "config", "init", "--address", "10.77.0.2/33"],
            "invalid value `10.77.0.2/33` for `--address <CIDR>`: `10.77.0.2/33` is no prefix: an IPv4 prefix has a \
             length from 0 to 32; write \"10.77.0.2/32\" for this address alone",
            "overlay config init --help",
        ),
        (
            &["overlay", "completions", "bsh"],
            "invalid value `bsh` for `<SHELL>` [possible values: bash, elvish, fish, powershell, zsh]",
            "did you mean `bash`?",
        ),
        (
            &["overlay", "completions", "tcsh"],
            "invalid value `tcsh` for `<SHELL>` [possible values: bash, elvish, fish, powershell, zsh]",
            "overlay completions --help",
        ),
    ];
    for (line, error, hint) in cases {
        let failure = refused(line);
        assert_eq!(failure.code, ExitKind::Usage, "{line:?}");
        assert_eq!((failure.error.as_str(), failure.hint.as_deref()), (error, Some(hint)), "{line:?}");
    }
}

#[test]
fn help_can_be_asked_as_a_verb() {
    for (line, shown) in [
        (&["overlay", "help"][..], "Usage: overlay "),
        (&["overlay", "help", "ping"], "Usage: overlay ping "),
        (&["overlay", "help", "key", "gen"], "Usage: overlay key gen "),
    ] {
        let help = Arguments::try_parse_from(line).expect_err("help is no verb of ours");
        assert!(!help.use_stderr(), "{line:?} is no mistake");
        assert!(help.to_string().contains(shown), "{line:?}: {help}");
    }
}

#[test]
fn what_every_verb_takes_may_stand_before_and_behind_it() {
    for line in [
        ["overlay", "--json", "--runtime-dir", "/tmp/r", "status"],
        ["overlay", "status", "--json", "--runtime-dir", "/tmp/r"],
    ] {
        let global = taken(&line).global;
        assert!(global.json && global.runtime_dir.as_os_str() == "/tmp/r");
    }
    assert_eq!(taken(&["overlay", "-vv", "version"]).global.verbose, 2);
    assert_eq!(taken(&["overlay", "version"]).global.runtime_dir, PathBuf::from("/run/overlay"));
}

#[test]
fn watching_has_a_period_that_may_be_left_out() {
    let watch = |line: &[&str]| match taken(line).verb {
        Verb::Status(status) => status.watch,
        verb => panic!("not status: {verb:?}"),
    };
    assert_eq!(watch(&["overlay", "status"]), None);
    assert_eq!(watch(&["overlay", "status", "--watch"]), Some(Duration::from_secs(1)));
    assert_eq!(watch(&["overlay", "status", "--watch", "0.5"]), Some(Duration::from_millis(500)));
    assert_eq!(watch(&["overlay", "status", "overlay0", "-w"]), Some(Duration::from_secs(1)));
}

#[test]
fn under_the_name_overlay_wg_the_verb_is_wg() {
    let meant = |line: &[&str]| by_program_name(line.iter().map(OsString::from).collect());
    assert_eq!(meant(&["/usr/local/bin/overlay-wg", "wg0"]), ["overlay", "wg", "wg0"]);
    assert_eq!(meant(&["overlay-wg", "-f", "wg0"]), ["overlay", "wg", "-f", "wg0"]);
    assert_eq!(meant(&["overlay", "wg", "wg0"]), ["overlay", "wg", "wg0"]);
    assert_eq!(meant(&["./overlay-wg/overlay", "status"]), ["./overlay-wg/overlay", "status"]);
    assert_eq!(meant(&[]), Vec::<OsString>::new());

    let Verb::Wg(wg) = taken(&["overlay-wg", "wg", "-f", "wg0"]).verb else { panic!("another verb") };
    assert!(wg.foreground && wg.interface == "wg0");
    let asked = Arguments::try_parse_from(["overlay-wg", "wg", "--version"]).expect_err("it only answers");
    assert!(!asked.use_stderr() && asked.to_string().contains(env!("CARGO_PKG_VERSION")), "{asked}");
}
