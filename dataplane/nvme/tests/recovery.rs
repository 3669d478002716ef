//! The recovery machine: any order of events keeps its promises.

use basalt_nvme::queue::{Cid, Violation};
use basalt_nvme::recovery::{Action, Event, Limits, Recovery, State};
use proptest::prelude::*;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1u16..4, any::<u16>(), any::<bool>())
            .prop_map(|(qid, cid, abort_sent)| Event::Overdue { qid, cid: Cid(cid), abort_sent }),
        3 => Just(Event::AbortAnswered),
        1 => Just(Event::Violation(Violation::NotInFlight { qid: 1, cid: 9 })),
        1 => Just(Event::Fatal),
        3 => Just(Event::ResetDone),
        2 => Just(Event::ResetFailed("not ready".to_owned())),
        1 => Just(Event::Departed),
    ]
}

proptest! {
    #[test]
    fn any_order_of_events(events in proptest::collection::vec((event(), 0u64..2_000_000_000), 0..200)) {
        let limits = Limits { aborts: 2, tries: 3, resets: 4, window_ns: 10_000_000_000 };
        let mut recovery = Recovery::new(limits);
        let mut now_ns = 0;
        let mut aborts = 0u32;
        let mut tries_in_a_row = 0;
        let mut fresh_resets_ns = Vec::new();
        for (event, passes_ns) in events {
            now_ns += passes_ns;
            let before = recovery.state();
            if event == Event::AbortAnswered {
                aborts = aborts.saturating_sub(1);
            }
            let action = recovery.on(event.clone(), now_ns);
            match &action {
                Action::Nothing => {}
                Action::Abort { .. } => {
                    prop_assert_eq!(before, State::Running);
                    aborts += 1;
                    prop_assert!(aborts <= limits.aborts, "more aborts than the controller takes");
                }
                Action::Reset { .. } => {
                    match before {
                        State::Running => {
                            tries_in_a_row = 1;
                            aborts = 0;
                            fresh_resets_ns.push(now_ns);
                        }
                        State::Resetting { .. } => tries_in_a_row += 1,
                        other => prop_assert!(false, "a reset from {:?}", other),
                    }
                    prop_assert!(tries_in_a_row <= limits.tries);
                    let recent = fresh_resets_ns.iter().filter(|&&at| now_ns - at < limits.window_ns).count();
                    prop_assert!(recent <= limits.resets as usize, "resets without end");
                }
                Action::Fail { .. } => prop_assert_eq!(recovery.state(), State::Failed),
                Action::Remove => prop_assert_eq!(event.clone(), Event::Departed),
            }
            // Whoever leaves the running state is told to somebody, and there is no way back from the end.
            match (before, recovery.state()) {
                (State::Gone, after) => prop_assert_eq!((after, action), (State::Gone, Action::Nothing)),
                (State::Failed, after) => prop_assert!(matches!(after, State::Failed | State::Gone)),
                (State::Running, State::Resetting { tries }) => prop_assert_eq!(tries, 1),
                (State::Running, State::Failed) => {
                    let told = matches!(action, Action::Fail { .. });
                    prop_assert!(told);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_usual_course() {
    let mut r = Recovery::new(Limits::default());
    let overdue = |abort_sent| Event::Overdue { qid: 1, cid: Cid(7), abort_sent };
    assert_eq!(r.on(overdue(false), 0), Action::Abort { qid: 1, cid: Cid(7) });
    assert_eq!(r.on(Event::AbortAnswered, 1), Action::Nothing);
    assert!(matches!(r.on(overdue(true), 2), Action::Reset { .. }));
    assert_eq!(r.on(overdue(true), 3), Action::Nothing, "the reset is under way");
    assert!(matches!(r.on(Event::ResetFailed("x".into()), 4), Action::Reset { .. }));
    assert_eq!(r.on(Event::ResetDone, 5), Action::Nothing);
    assert_eq!(r.state(), State::Running);
    assert_eq!(r.on(Event::Departed, 6), Action::Remove);
    assert_eq!(r.on(overdue(false), 7), Action::Nothing);
}
