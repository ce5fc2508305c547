//! Command lines that are accepted, and the messages for those that are not.

use overlay_golden::golden;

use super::*;
use crate::output::rendered;

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
    let cases: [&[&str]; 25] = [
        &["overlay"],
        &["overlay", "key"],
        &["overlay", "--json", "config"],
        &["overlay", "statsu"],
        &["overlay", "status", "--jsno"],
        &["overlay", "stat"],
        &["overlay", "ping"],
        &["overlay", "ping", "bob", "-i", "0"],
        &["overlay", "config", "init", "--address", "10.77.0.2/33"],
        &["overlay", "completions", "bsh"],
        &["overlay", "completions", "tcsh"],
        &["overlay", "rendezvous"],
        &["overlay", "rendezvous", "serve", "--network", "lab"],
        &["overlay", "rendezvous", "serve", "--network", "Lab", "--listen", "[::]:7447"],
        &["overlay", "rendezvous", "serve", "--network", "lab", "--listen", "[::]:7447", "--pool", "10.64.1.0/16"],
        &["overlay", "rendezvous", "serve", "--network", "lab", "--listen", "[::]:7447", "--cert", "a.pem"],
        &["overlay", "handshake"],
        &["overlay", "handshake", "bob", "need", "it"],
        &["overlay", "handshake", "bob", "--want", "22/tcp"],
        &["overlay", "handshake", "bob", "--want", "none"],
        &["overlay", "approve", "bob", "--allow", "all"],
        &["overlay", "approve", "bob", "--allow", "tcp/22,443"],
        &["overlay", "approve", "bob", "--for", "30"],
        &["overlay", "approve", "bob", "--for", "tomorrow"],
        &["overlay", "aprove", "bob"],
    ];
    for line in cases {
        let failure = refused(line);
        assert_eq!(failure.code, ExitKind::Usage, "{line:?}");
        golden(line.join(" "), rendered(&failure, false));
    }
}

#[test]
fn help_can_be_asked_as_a_verb() {
    for (line, shown) in [
        (&["overlay", "help"][..], "Usage: overlay "),
        (&["overlay", "help", "ping"], "Usage: overlay ping "),
        (&["overlay", "help", "key", "gen"], "Usage: overlay key gen "),
    ] {
        let help = Arguments::try_parse_from(line).expect_err("help is not a verb of ours");
        assert!(!help.use_stderr(), "{line:?} is not a mistake");
        assert!(help.to_string().contains(shown), "{line:?}: {help}");
    }
}

#[test]
fn every_verb_has_its_help() {
    fn help(command: &mut clap::Command, line: &str) {
        golden(format!("{line} --help"), command.render_long_help().to_string());
        let verbs: Vec<_> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        for verb in verbs.iter().filter(|verb| *verb != "help") {
            help(command.find_subcommand_mut(verb).expect("its own verb"), &format!("{line} {verb}"));
        }
    }
    // Wider than any line, so that the words stand as they were written.
    let mut command = command().term_width(0);
    command.build();
    help(&mut command, "overlay");
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
fn trust_is_asked_for_and_given_as_documented() {
    let line = [
        "overlay",
        "handshake",
        "bob",
        "need your search tool",
        "--want",
        "tcp/8000",
        "--allow",
        "icmp",
        "--for",
        "24h",
    ];
    let Verb::Handshake(asked) = taken(&line).verb else { panic!("a different verb") };
    assert_eq!(
        (asked.peer.as_str(), asked.reason.as_str(), asked.lifetime),
        ("bob", "need your search tool", Some(86_400))
    );
    assert_eq!((asked.want, asked.allow), (vec!["tcp/8000".to_owned()], vec!["icmp".to_owned()]));

    let line = ["overlay", "approve", "alice", "--allow", "tcp/8000", "--allow", "icmp", "-I", "lab0", "--json"];
    let arguments = taken(&line);
    let Verb::Approve(approved) = arguments.verb else { panic!("a different verb") };
    assert!(arguments.global.json && approved.lifetime.is_none());
    assert_eq!((approved.allow.len(), approved.on.interface.as_deref()), (2, Some("lab0")));
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
