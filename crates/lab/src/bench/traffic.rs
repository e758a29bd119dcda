//! What a pass moves, and a copy of the same.

use super::copy::{self, Way, Word};
use crate::operators::{Extent, Operator, Signature, Slot, Tensors, Types, View};
use std::hint::black_box;

/// What must move in a pass, and so in a copy.
pub(super) struct Traffic<T: Types> {
    /// The tensors as large as x that are read.
    pub(super) reads: Vec<Slot>,
    /// Those that are written.
    pub(super) writes: Vec<Slot>,
    /// The bytes of all of them.
    pub(super) bytes: usize,
    /// Where outputs have fewer bytes than x, the copy is of half the bytes of all, from the input to here.
    pub(super) spare: Vec<T::E>,
}

impl<T: Types<E: Word>> Traffic<T> {
    pub(super) fn new(operator: &Operator, signature: &Signature, tensors: &Tensors<T>) -> Self {
        let large = |slot: &Slot| (operator.extent)(*slot) == Extent::Whole && tensors.get(*slot).is_some();
        let of = |slots: &[Slot]| slots.iter().copied().filter(large).collect::<Vec<_>>();
        let (reads, writes) = (of(&[signature.needs, signature.takes].concat()), of(signature.writes));
        let all = || reads.iter().chain(&writes);
        let bytes = all().filter_map(|&slot| tensors.get(slot)).map(View::bytes).sum();
        if all().all(|&slot| tensors.elements(slot).is_some()) {
            return Self { reads, writes, bytes, spare: Vec::new() };
        }
        let spare = vec![Default::default(); bytes / 2 / size_of::<T::E>()];
        Self { reads: vec![operator.input()], writes: Vec::new(), bytes, spare }
    }
}

pub(super) fn copy_tensors<T: Types<E: Word>>(
    way: Way,
    tensors: &mut Tensors<T>,
    [reads, writes]: [&[Slot]; 2],
    spare: &mut [T::E],
    parts: usize,
) {
    if let ([input], []) = (reads, writes) {
        let from = tensors.elements(*input).unwrap_or_default();
        return copy::copy(way, black_box(&[&from[..spare.len()]]), black_box(&mut [spare]), parts);
    }
    // The outputs are taken out for the time of the copy: then they can be written while the inputs are read.
    let mut outputs: Vec<Vec<T::E>> = writes
        .iter()
        .map(|&slot| tensors.of_elements(slot).and_then(Option::take).unwrap_or_default())
        .collect();
    let inputs: Vec<&[T::E]> = reads.iter().map(|&slot| tensors.elements(slot).unwrap_or_default()).collect();
    let mut targets: Vec<&mut [T::E]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    copy::copy(way, black_box(&inputs), black_box(&mut targets), parts);
    for (&slot, output) in writes.iter().zip(outputs) {
        if let Some(place) = tensors.of_elements(slot) {
            *place = Some(output);
        }
    }
}
