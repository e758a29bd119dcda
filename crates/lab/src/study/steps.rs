//! Units that are over so soon that nothing needs to be saved: a closure, and how often it is called.

use super::{Error, Unit};
use crate::report::model::Measured;

struct Steps<F> {
    step: F,
    done: usize,
    count: usize,
    measured: Measured,
}

/// A unit of `count` steps of at most a second or so, [`Plan::ticks`](super::Plan::ticks) too. `step` is given its
/// number, from 0, and adds what it measured. Interrupted units begin anew.
pub fn steps<'a>(count: usize, step: impl FnMut(usize, &mut Measured) + 'a) -> Box<dyn Unit + 'a> {
    Box::new(Steps { step, done: 0, count, measured: Measured::default() })
}

impl<F: FnMut(usize, &mut Measured)> Unit for Steps<F> {
    fn done(&self) -> u64 {
        self.done as u64
    }

    fn advance(&mut self) -> Result<bool, Error> {
        if self.done < self.count {
            (self.step)(self.done, &mut self.measured);
            self.done += 1;
        }
        Ok(self.done < self.count)
    }

    fn finish(self: Box<Self>) -> Result<Measured, Error> {
        Ok(self.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_taken_once() {
        let mut unit = steps(3, |step, measured| measured.point("seen", step as f64, 1.0));
        let more: Vec<bool> = (0..3).map(|_| unit.advance().unwrap()).collect();
        assert_eq!((more, unit.done()), (vec![true, true, false], 3));
        assert!(unit.save().unwrap().is_none());
        assert_eq!(unit.finish().unwrap().curves["seen"], [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]);
    }
}
