//! A person gives trust again that was taken back, before the peer asks again.

use overlay_wire::signed::PublicKey;

use super::{Book, Effect};

impl Book {
    /// Lets the config and grants that were made beforehand count again for a peer from which a person had taken trust back.
    pub(crate) fn lift_bar(&mut self, peer: &PublicKey) -> Vec<Effect> {
        let relation = self.relations.get_mut(peer);
        let was_barred = relation.is_some_and(|relation| {
            relation.is_withdrawn = false;
            std::mem::take(&mut relation.is_barred)
        });
        if was_barred { vec![Effect::Changed(*peer)] } else { Vec::new() }
    }
}
