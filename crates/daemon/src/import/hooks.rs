//! What commands such as `PostUp` mean for a config that runs none: keys from files, forwarding, everything else.

/// The meaning of one line of commands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hook {
    /// The file that contains our private key.
    pub(super) private_key: Option<String>,
    /// Peers by public key, each with the file of its preshared key.
    pub(super) preshared_keys: Vec<(String, String)>,
    /// Whether packets are to be forwarded between interfaces.
    pub(super) forwards: bool,
    /// The commands that have no equivalent here.
    pub(super) rest: Vec<String>,
}

/// Parses the commands of a line. `%i` stands for the interface.
pub(super) fn read(line: &str, interface: &str) -> Hook {
    let mut hook = Hook::default();
    let line = line.replace("%i", interface);
    for command in line.split([';', '\n']).flat_map(|part| part.split("&&")).map(str::trim) {
        if command.is_empty() {
            continue;
        }
        hook.forwards |= is_forwarding(command);
        if !wg_set(command, interface, &mut hook) {
            hook.rest.push(command.to_owned());
        }
    }
    hook
}

/// Parses `wg set IFACE [private-key FILE] [peer KEY preshared-key FILE]...`. Returns false for any other command.
fn wg_set(command: &str, interface: &str, hook: &mut Hook) -> bool {
    // The one substitution that names the file it reads.
    let plain = command.replace("<(cat ", "\u{1}").replace(')', "");
    let words: Vec<&str> = plain.split_whitespace().map(|word| word.trim_matches(['"', '\'', '\u{1}'])).collect();
    let words = words.strip_prefix(&["sudo"]).unwrap_or(&words);
    let Some(("wg" | "/usr/bin/wg", ["set", name, settings @ ..])) =
        words.split_first().map(|(first, rest)| (*first, rest))
    else {
        return false;
    };
    if *name != interface || settings.len() % 2 == 1 {
        return false;
    }
    let (mut private_key, mut preshared_keys, mut peer) = (None, Vec::new(), None);
    for pair in settings.chunks_exact(2) {
        let is_file = !pair[1].contains(['<', '$', '|', '`', '(']);
        match (pair[0], peer) {
            ("private-key", _) if is_file => private_key = Some(pair[1].to_owned()),
            ("peer", _) => peer = Some(pair[1]),
            ("preshared-key", Some(peer)) if is_file => preshared_keys.push((peer.to_owned(), pair[1].to_owned())),
            _ => return false,
        }
    }
    hook.private_key = private_key.or(hook.private_key.take());
    hook.preshared_keys.extend(preshared_keys);
    true
}

/// Whether a command is about forwarding: the kernel's switch, packet filter chains, address translation.
fn is_forwarding(command: &str) -> bool {
    let bare: String = command.chars().filter(|c| !c.is_whitespace()).collect();
    let is_switch = ["ip_forward=1", "forwarding=1"].iter().any(|text| bare.contains(text));
    let is_rule = command.contains("FORWARD") && command.contains("ACCEPT");
    let is_nft = command.contains("nft") && command.contains("forward") && command.contains("accept");
    let is_translation = command.contains("MASQUERADE") || command.contains("masquerade");
    is_switch || is_rule || is_nft || is_translation || command.contains("ufw route allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_the_commands_that_people_write() {
        let key = |line: &str| read(line, "wg0").private_key;
        let file = Some("/etc/wireguard/wg0.key".to_owned());
        assert_eq!(key("wg set %i private-key /etc/wireguard/%i.key"), file);
        assert_eq!(key("sudo wg set wg0 private-key \"/etc/wireguard/wg0.key\" && echo up"), file);
        assert_eq!(key("wg set %i private-key <(cat /etc/wireguard/%i.key)"), file);
        assert_eq!(key("wg set %i private-key <(pass show vpn)"), None, "no file says what it holds");
        assert_eq!(key("wg set wg1 private-key /etc/wireguard/wg0.key"), None, "a different interface");
        let hook = read("wg set %i peer AAA= preshared-key /a.psk peer BBB= preshared-key /b.psk", "wg0");
        let both = [("AAA=", "/a.psk"), ("BBB=", "/b.psk")].map(|(peer, file)| (peer.to_owned(), file.to_owned()));
        assert_eq!((hook.preshared_keys, hook.rest), (both.to_vec(), Vec::new()));
        assert_eq!(read("wg set %i fwmark 5", "wg0").rest, ["wg set wg0 fwmark 5"]);
    }

    #[test]
    fn forwarding_is_seen_however_it_is_switched_on() {
        for line in [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl net.ipv6.conf.all.forwarding = 1",
            "echo x; iptables -A FORWARD -i %i -j ACCEPT",
            "ip6tables -I FORWARD -o %i -j ACCEPT",
            "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
            "nft add rule inet filter forward iifname %i accept",
            "ufw route allow in on %i",
        ] {
            assert!(read(line, "wg0").forwards, "{line}");
        }
        assert!(!read("iptables -A INPUT -i %i -j ACCEPT; ip route add 10.0.0.0/8 dev %i", "wg0").forwards);
    }
}
