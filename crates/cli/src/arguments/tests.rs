//! What the command line takes, and what it says to one that it does not.

use super::*;

fn refused(line: &[&str]) -> Failure {
    failure(&Arguments::try_parse_from(line).expect_err("a command line that is wrong"))
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
    let cases: [(&[&str], &str, &str); 7] = [
        (&["overlay"], "no verb was given", "overlay --help"),
        (&["overlay", "key"], "no verb was given", "overlay --help"),
        (&["overlay", "statsu"], "unrecognized subcommand `statsu`", "did you mean `status`?"),
        (&["overlay", "status", "--jsno"], "unexpected argument `--jsno` found", "did you mean `--json`?"),
        (&["overlay", "ping"], "the following required arguments were not provided: <PEER|IP>", "overlay --help"),
        (
            &["overlay", "ping", "bob", "-i", "0"],
            "invalid value `0` for `--interval <SECONDS>`: give seconds between 0.001 and 86400",
            "overlay --help",
        ),
        (
            &["overlay", "completions", "bsh"],
            "invalid value `bsh` for `<SHELL>` [possible values: bash, elvish, fish, powershell, zsh]",
            "did you mean `bash`?",
        ),
    ];
    for (line, error, hint) in cases {
        let failure = refused(line);
        assert_eq!(failure.code, ExitKind::Usage, "{line:?}");
        assert_eq!((failure.error.as_str(), failure.hint.as_deref()), (error, Some(hint)), "{line:?}");
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
