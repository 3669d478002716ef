//! A closed loop on a reactor: so many calls in flight, each lane a task of its own.

use crate::meter::Meter;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Runs a call again and again in every lane until the time is over. `call` gets the number of the call and says how
/// much it did, 0 to end its lane; the meter, and how many calls there were.
pub(super) async fn lanes<E: 'static>(
    in_flight: usize,
    time: Duration,
    call: impl AsyncFn(u64) -> Result<u64, E> + 'static,
) -> Result<(Meter, u64), E> {
    let meter = Rc::new(RefCell::new(Meter::new(time)));
    let next = Rc::new(Cell::new(0));
    let call = Rc::new(call);
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (meter, next, call) = (meter.clone(), next.clone(), call.clone());
            basalt_reactor::spawn(async move {
                loop {
                    let number = next.replace(next.get() + 1);
                    let amount = call(number).await?;
                    if amount == 0 || !meter.borrow_mut().add(amount) {
                        return Ok(());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    let meter = meter.replace(Meter::new(time));
    Ok((meter, next.get()))
}
