//! How problems are shown, and that no secret is shown with them.

use super::*;

#[test]
fn an_error_in_one_line_names_file_line_and_column() {
    let error = read(&with_interface("listen_port = 70000\nmtu = 1")).expect_err("two mistakes");
    golden("two mistakes", error.to_string());
    let found: Vec<_> = error.problems().iter().map(|problem| (problem.kind, problem.line, problem.column)).collect();
    assert_eq!(found, [("bad_port", 5, 15), ("bad_mtu", 6, 7)]);
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let error = read("[interface]\n\"größe\" = 1\n").expect_err("an unknown key");
    let error = error.problems().iter().find(|problem| problem.line == 2).expect("in line 2");
    assert_eq!(error.column, 1);
    let error =
        read(&with_peer(&format!("public_key = \"{BOB}\"\nallowed_ips = [\"größe\", \"x\"]"))).expect_err("bad");
    assert_eq!(error.problems()[1].column, 25);
}

#[test]
fn a_terminal_gets_colour_and_a_pipe_none() {
    let error = read(&with_interface("listen_port = 70000")).expect_err("a mistake");
    assert!(error.render(true).contains("\u{1b}["));
    assert!(!error.render(false).contains('\u{1b}'));
}

#[test]
fn an_escape_sequence_in_the_file_does_not_reach_the_terminal() {
    let escape = "\\u001b[31m";
    let error = read(&format!(
        "[interface]\nname = \"{escape}\"\nprivate_key_file = \"{escape}\"\naddresses = \"{escape}\"\n\
         # \u{1b}[31m\n\"{escape}\" = 1\n[[peer]]\nendpoint = \"{escape}\"\n"
    ));
    let error = error.expect_err("nothing in it is right");
    assert!(!error.render(false).contains('\u{1b}') && !error.to_string().contains('\u{1b}'));
    let hints: String = error.problems().iter().filter_map(|problem| problem.hint.as_deref()).collect();
    assert!(!hints.contains(char::is_control), "{hints:?}");
}

#[test]
fn the_long_path_of_a_key_file_is_no_secret() {
    let path = "/home/somebody/projects/overlay/deployments/production/own.key";
    let text = INTERFACE.replace("own.key", path);
    let rendered = read(&text).expect_err("the config is wrong").render(false);
    assert_eq!(rendered.matches(path).count(), 3, "in the message, the line and the hint: {rendered}");
}

#[test]
fn no_debug_output_shows_a_secret() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\npreshared_key_file = \"bob.psk\"\nallowed_ips = [\"10.77.0.2/32\"]"
    )));
    let shown = format!("{config:?}");
    assert!(shown.contains("PrivateKey(redacted)") && shown.contains("preshared_key: Some(\"redacted\")"), "{shown}");
    let key = format!("{:?}", &*config.interface.private_key.expect("static mode has one").to_bytes());
    assert!(!shown.contains(&key), "{shown}");
}

#[test]
fn no_damage_to_a_config_makes_the_reader_panic_or_tell_a_secret() {
    let whole = format!(
        "[interface]\nname = \"overlay0\"\nprivate_key = \"{OWN}\"\naddresses = [\"10.77.0.1/24\", \"fd00::1/64\"]\nmtu = 1420\n\
         [[peer]]\nname = \"größe\"\npublic_key = \"{BOB}\"\npreshared_key_file = \"{PRESHARED}\"\n\
         endpoint = \"[2001:db8::7]:51820\"\nallowed_ips = [\"10.77.0.2/32\", '::/0']\nallow = [\"tcp/8000-8010\", \"47\"]\n"
    );
    let at_each = whole.char_indices().flat_map(|(at, c)| {
        let (before, after) = (&whole[..at], &whole[at + c.len_utf8()..]);
        let replaced =
            ["", "=", "\"", "\n", "[", "/", "-", "9", "ß", "\u{0}"].map(|with| format!("{before}{with}{after}"));
        replaced.into_iter().chain([before.to_owned()])
    });
    for text in at_each {
        let error = read(&text).expect_err("the private key stands in it, or nothing does");
        let shown = format!("{}{error}{error:?}", error.render(false));
        // A third of a key is enough to recognise it by.
        assert!(!shown.contains(&OWN[15..30]) && !shown.contains(&PRESHARED[15..30]), "{text}\n{shown}");
    }
}

#[test]
fn what_deserves_a_look_is_said_without_refusing() {
    warns(INTERFACE, &["no_peers 1:1"]);
    warns(
        &with_peer(&format!("name = \"bob\"\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.1/32\"]")),
        &["own_address 9:16"],
    );
    warns(
        &with_peer(&format!(
            "public_key = \"{BOB}\"\nendpoint = \"10.77.0.9:51820\"\nallowed_ips = [\"10.77.0.2/32\"]"
        )),
        &["endpoint_in_network 4:14"],
    );
}
