//! The table of flows beside a list that is searched from end to end.

use super::*;

/// Flows as lists that are searched from end to end.
#[derive(Default)]
struct Model {
    /// By their last packet.
    flows: Vec<(FlowKey, Flow)>,
    /// Ours, by when they came into their class or last had a chance; their class, and whether they have spoken since.
    ranks: Vec<(FlowKey, usize, bool)>,
}

impl Model {
    fn forget(&mut self, gone: impl Fn(&FlowKey, &Flow) -> bool) {
        let gone: Vec<_> = self.flows.extract_if(.., |(key, flow)| gone(key, flow)).map(|(key, _)| key).collect();
        self.ranks.retain(|(key, ..)| !gone.contains(key));
    }

    fn open(&mut self, key: FlowKey, flow: Flow, now: Instant) -> bool {
        self.forget(|k, f| *k == key || !f.is_live(now));
        if self.flows.iter().filter(|(_, f)| f.opener == flow.opener).count() == MAX_FLOWS_PER_HALF {
            if flow.opener == Opener::Peer {
                return false;
            }
            let gone = self.least(flow.class() as usize);
            self.forget(|k, _| *k == gone);
        }
        self.flows.push((key, flow));
        if flow.opener == Opener::Us {
            self.ranks.push((key, flow.class() as usize, false));
        }
        true
    }

    /// A table that shrinks ranks its flows by their last packet.
    fn on_shrink(&mut self, now: Instant) {
        self.forget(|_, flow| !flow.is_live(now));
        let ours = self.flows.iter().filter(|(_, flow)| flow.opener == Opener::Us);
        self.ranks = ours.map(|(key, flow)| (*key, flow.class() as usize, false)).collect();
    }

    fn least(&mut self, newcomer: usize) -> FlowKey {
        let classes = || self.ranks.iter().map(|(_, class, _)| *class).chain([newcomer]);
        let len = |class| classes().filter(|of| *of == class).count();
        let least = (0..ROOM.len()).find(|class| len(*class) > ROOM[*class]).unwrap();
        let of_class: Vec<_> = self.ranks.iter().filter(|(_, class, _)| *class == least).copied().collect();
        for (key, class, has_spoken) in of_class.iter().take(MAX_CHANCES) {
            if !has_spoken {
                return *key;
            }
            self.ranks.retain(|(k, ..)| k != key);
            self.ranks.push((*key, *class, false));
        }
        of_class.get(MAX_CHANCES).unwrap_or(&of_class[0]).0
    }

    fn find(&self, key: &FlowKey, now: Instant) -> Option<Flow> {
        self.flows.iter().find(|(k, f)| k == key && f.is_live(now)).map(|(_, flow)| *flow)
    }

    fn on_packet(&mut self, key: &FlowKey, from: Opener, flags: u8, now: Instant) {
        let at = self.flows.iter().position(|(k, _)| k == key).unwrap();
        let (key, mut flow) = self.flows.remove(at);
        let class = flow.class();
        flow.on_packet(from, flags, now);
        self.flows.push((key, flow));
        if let Some(at) = self.ranks.iter().position(|(k, ..)| *k == key) {
            self.ranks[at].2 = true;
            if flow.class() != class {
                self.ranks.remove(at);
                self.ranks.push((key, flow.class() as usize, false));
            }
        }
    }
}

#[test]
fn the_table_agrees_with_a_list_that_is_searched_from_end_to_end() {
    let (mut flows, mut model) = (Flows::new(3, purse().budget), Model::default());
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut now = at(0);
    let (mut refused, mut hits, mut shrunk) = (0, 0, 0);
    for step in 0..60_000u64 {
        // Bursts fill both halves, pauses let the short-lived die.
        now = now + Duration::from_millis(if step % 20_000 > 15_000 { 40 } else { 1 });
        let before = flows.slots();
        flows.tidy(now);
        if flows.slots() < before {
            model.on_shrink(now);
            shrunk += 1;
        }
        let protocol = [ip::TCP, ip::UDP, ip::ICMP][next(3) as usize];
        let key = FlowKey {
            protocol,
            ours: End { address: US.v4.into(), port: Some(next(2600) as u16) },
            theirs: End { address: PEER.v4.into(), port: None },
        };
        let from = [Opener::Us, Opener::Peer][next(2) as usize];
        let flags = [SYN, ACK, ACK, FIN, RST][next(5) as usize];
        let found = flows.find(&key, now);
        assert_eq!(found.map(|(_, flow)| flow), model.find(&key, now), "step {step}");
        match found {
            Some((id, _)) if next(10) == 0 => {
                flows.remove(id);
                model.forget(|k, _| *k == key);
            }
            Some((id, _)) => {
                hits += 1;
                flows.on_packet(id, from, flags, now);
                model.on_packet(&key, from, flags, now);
            }
            None => {
                let flow = Flow::new(protocol, from, now);
                let opened = flows.open(key, flow, Party::OWN, now);
                assert_eq!(opened, model.open(key, flow, now), "step {step}");
                refused += usize::from(!opened);
            }
        }
    }
    assert!(refused > 100 && hits > 10_000 && shrunk > 1, "the run reaches what it is for: {refused} {hits} {shrunk}");
    assert!(flows.slots() <= 2 * MAX_FLOWS_PER_HALF);
}
