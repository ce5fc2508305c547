//! Which key was meant by one that does not exist: other words, other ways to write it, slips of the keyboard.

use super::KeyTable;

impl KeyTable {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.name == key)
    }

    /// The key that was most likely meant.
    pub(crate) fn meant(&self, plain: &str) -> Option<&'static str> {
        self.alias(plain).or_else(|| self.nearest(plain))
    }

    /// The key meant by a different word for it, or by a different way to write it: `AllowedIPs`, `allowed-ips`.
    pub(crate) fn alias(&self, plain: &str) -> Option<&'static str> {
        let spelled = self.keys.iter().find(|key| key.name.replace('_', "") == plain);
        spelled.or_else(|| self.keys.iter().find(|key| key.aliases.contains(&plain))).map(|key| key.name)
    }

    /// The key that differs, or whose alias does, by a slip or two of the keyboard.
    fn nearest(&self, plain: &str) -> Option<&'static str> {
        let spelled = self.keys.iter().map(|key| (key.name.replace('_', ""), key.name));
        let aliases = self.keys.iter().flat_map(|key| key.aliases.iter().map(|word| ((*word).to_owned(), key.name)));
        let near = spelled.chain(aliases).filter_map(|(word, key)| {
            let slips = strsim::damerau_levenshtein(&word, plain);
            (slips <= (word.len() / 4).clamp(1, 3) && slips < plain.len()).then_some((slips, key))
        });
        near.min_by_key(|(slips, _)| *slips).map(|(_, key)| key)
    }

    pub(crate) fn listed(&self) -> String {
        self.keys.iter().map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", ")
    }
}
