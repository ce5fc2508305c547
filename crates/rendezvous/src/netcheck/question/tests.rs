//! The transition table, then times and transaction ids.

use overlay_wire::stun::{Message, Refusal};
use rand_core::SeedableRng;

use super::*;

const HERE: &str = "192.0.2.1:3478";
const ELSEWHERE: &str = "192.0.2.2:3479";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(1_000 + millis)
}

fn plain() -> Question {
    Question::new(address(HERE), &mut ChaCha8Rng::from_seed([1; 32]), at(0))
}

fn changed() -> Question {
    let change = Change { ip: true, port: true };
    Question::changed(address(HERE), change, address(ELSEWHERE), &mut ChaCha8Rng::from_seed([1; 32]), at(0))
}

fn id_of(request: &[u8]) -> TransactionId {
    let Ok(Message::Request(request)) = Message::parse(request) else { panic!("not a request") };
    request.id
}

fn answer(id: TransactionId) -> Heard {
    Heard::Answer(Answer { id, mapped: address("203.0.113.7:40000"), origin: None, other: None })
}

fn refusal(id: TransactionId) -> Heard {
    Heard::Refusal(Refusal { id, code: 420 })
}

/// What can happen to a question.
#[derive(Clone, Copy, Debug)]
enum Event {
    AnswerFromHere,
    AnswerFromElsewhere,
    AnswerFromAStranger,
    AnswerToSomebodyElse,
    RefusalFromHere,
    Unreachable,
    TheEndOfTime,
}

fn happens(event: Event, question: &mut Question) -> Option<Taken> {
    let id = id_of(&question.poll_attempt(at(0)).expect("the first attempt"));
    let mut handle = |from, heard| Some(question.handle(address(from), &heard, at(30)));
    match event {
        Event::AnswerFromHere => handle(HERE, answer(id)),
        Event::AnswerFromElsewhere => handle(ELSEWHERE, answer(id)),
        Event::AnswerFromAStranger => handle("192.0.2.1:9", answer(id)),
        Event::AnswerToSomebodyElse => handle(HERE, answer(TransactionId([0; 12]))),
        Event::RefusalFromHere => handle(HERE, refusal(id)),
        Event::Unreachable => {
            question.on_unreachable();
            None
        }
        Event::TheEndOfTime => {
            for millis in [500, 1_500, 3_500] {
                question.handle_timeout(at(millis));
                question.poll_attempt(at(millis)).expect("an attempt");
            }
            question.handle_timeout(at(5_500));
            None
        }
    }
}

#[test]
fn each_event_leads_to_one_outcome_and_the_first_stays() {
    use Event::{
        AnswerFromAStranger, AnswerFromElsewhere, AnswerFromHere, AnswerToSomebodyElse, RefusalFromHere, TheEndOfTime,
        Unreachable,
    };
    let answered = Outcome::Answered { mapped: address("203.0.113.7:40000"), round_trip: Duration::from_millis(30) };
    let refused = Outcome::Refused { code: 420 };
    for (event, of_plain, of_changed, taken) in [
        (AnswerFromHere, answered, Outcome::NotChanged, Some(Taken::Used)),
        (AnswerFromElsewhere, Outcome::Asking, answered, None),
        (AnswerFromAStranger, Outcome::Asking, Outcome::Asking, Some(Taken::WrongSource)),
        (AnswerToSomebodyElse, Outcome::Asking, Outcome::Asking, Some(Taken::Unasked)),
        (RefusalFromHere, refused, refused, Some(Taken::Used)),
        (Unreachable, Outcome::Unreachable, Outcome::Unreachable, None),
        (TheEndOfTime, Outcome::Silent, Outcome::Silent, None),
    ] {
        for (mut question, expected) in [(plain(), of_plain), (changed(), of_changed)] {
            let found = happens(event, &mut question);
            assert_eq!(question.outcome(), expected, "{event:?}");
            assert!(taken.is_none() || found == taken, "{event:?}: {found:?}");
            if expected == Outcome::Asking {
                continue;
            }
            // What has ended stays as it is, and nothing is sent or waited for any more.
            assert_eq!(question.deadline(), None);
            assert_eq!(question.poll_attempt(at(60_000)), None);
            question.on_unreachable();
            question.handle_timeout(at(60_000));
            let first = question.transaction(0);
            for heard in [answer(first), refusal(first)] {
                assert_eq!(question.handle(address(HERE), &heard, at(60_000)), Taken::Unasked);
            }
            assert_eq!(question.outcome(), expected, "{event:?}, then everything else");
        }
    }
}

#[test]
fn it_is_asked_four_times_and_given_up_two_seconds_later() {
    let mut question = plain();
    let mut sent = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for millis in 0..10_000 {
        question.handle_timeout(at(millis));
        while let Some(request) = question.poll_attempt(at(millis)) {
            sent.push(millis);
            ids.insert(id_of(&request));
        }
        if question.outcome() == Outcome::Silent {
            assert_eq!(millis, 5_500);
            break;
        }
    }
    assert_eq!(sent, [0, 500, 1_500, 3_500]);
    assert_eq!(ids.len(), ATTEMPTS, "each attempt has an id of its own");
}

#[test]
fn the_round_trip_is_that_of_the_attempt_that_was_answered() {
    for (answered, expected) in [(0, 730), (1, 230)] {
        let mut question = plain();
        let first = id_of(&question.poll_attempt(at(0)).expect("the first attempt"));
        let second = id_of(&question.poll_attempt(at(500)).expect("the second attempt"));
        let heard = answer([first, second][answered]);
        assert_eq!(question.handle(address(HERE), &heard, at(730)), Taken::Used);
        let Outcome::Answered { round_trip, .. } = question.outcome() else { panic!("not answered") };
        assert_eq!(round_trip, Duration::from_millis(expected));
    }
}

#[test]
fn an_attempt_that_was_not_sent_yet_is_not_answered() {
    let mut question = plain();
    question.poll_attempt(at(0)).expect("the first attempt");
    let second = question.transaction(1);
    assert_eq!(question.handle(address(HERE), &answer(second), at(10)), Taken::Unasked);
    assert_eq!(question.outcome(), Outcome::Asking);
}
