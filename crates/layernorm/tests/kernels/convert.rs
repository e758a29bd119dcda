//! Halves from and to f32, in bulk: all of them, and every place where rounding turns.

use crate::level::{Effort, at, best, levels};
use crate::number::{Stored, bits, difference};
use crate::random::Random;
use layernorm::{Error, Run, narrow, widen};

for_types!([f16 bf16], [every_half_is_read_exactly, rounding_turns_in_the_middle, any_number_of_any_length]);

fn widened<E: Stored<Acc = f32>>(from: &[E], run: Run) -> Vec<f32> {
    let mut to = vec![f32::NAN; from.len()];
    widen(from, &mut to, run).unwrap();
    to
}

fn narrowed<E: Stored<Acc = f32>>(from: &[f32], run: Run) -> Vec<E> {
    let mut to = vec![E::of(f64::NAN); from.len()];
    narrow(from, &mut to, run).unwrap();
    to
}

fn every_half_is_read_exactly<E: Stored<Acc = f32>>() {
    let all: Vec<E> = (0..1 << 16).step_by(Effort::of(97, 1, 1)).map(E::of_bits).collect();
    let expected: Vec<f32> = all.iter().map(|half| half.wide() as f32).collect();
    for level in levels() {
        assert_eq!(difference("f32", &widened(&all, at(level)), &expected), None, "{level}");
        assert_eq!(difference("back", &narrowed::<E>(&expected, at(level)), &all), None, "{level}");
    }
}

/// Both sides of every half and of every middle between two, of both signs; beyond the largest; not numbers.
fn rounding_turns_in_the_middle<E: Stored<Acc = f32>>() {
    let infinity = E::of(f64::INFINITY).bits();
    let mut numbers = vec![f32::MAX, f32::INFINITY, f32::from_bits(1), f32::from_bits(0x0080_0000)];
    for bits in (0..infinity).step_by(Effort::of(997, 1, 1)) {
        let [below, above] = [bits, bits + 1].map(|bits| E::of_bits(bits).wide());
        // Beyond the largest, where one more step would lead.
        let above = if above.is_finite() { above } else { 2.0 * below - E::of_bits(bits - 1).wide() };
        let middle = ((below + above) / 2.0) as f32;
        assert!(f64::from(middle) * 2.0 == below + above, "a middle is a number of f32");
        for number in [below as f32, middle] {
            numbers.extend([number.next_down(), number, number.next_up()]);
        }
    }
    for nan in [0x7f80_0001, 0x7fc0_0000, 0x7fff_ffff, 0x7f80_8000, 0x7fbf_ffff] {
        numbers.push(f32::from_bits(nan));
    }
    let numbers: Vec<f32> = numbers.iter().flat_map(|number| [*number, -number]).collect();
    let expected: Vec<E> = numbers.iter().map(|number| E::of(f64::from(*number))).collect();
    for level in levels() {
        assert_eq!(difference("halves", &narrowed(&numbers, at(level)), &expected), None, "{level}");
    }
}

fn any_number_of_any_length<E: Stored<Acc = f32>>() {
    let mut random = Random::new(81);
    for len in (0..Effort::of(20, 70, 70)).chain([Effort::of(33, 10_000, 1_000_000)]) {
        let numbers: Vec<f32> = (0..len).map(|_| f32::from_bits(random.bits() as u32)).collect();
        let expected: Vec<E> = numbers.iter().map(|number| E::of(f64::from(*number))).collect();
        for level in levels() {
            // What lies behind is not touched.
            let (mut to, mut back) = (vec![E::of(3.0); len + 1], vec![3.0; len + 1]);
            narrow(&numbers, &mut to[..len], at(level)).unwrap();
            widen(&to[..len], &mut back[..len], at(level)).unwrap();
            assert_eq!(difference("halves", &to[..len], &expected), None, "{level}, {len}");
            assert!((0..len).all(|i| bits(back[i]) == bits(expected[i].wide() as f32)), "{level}, {len}");
            assert_eq!((to[len], back[len]), (E::of(3.0), 3.0), "{level}, {len}");
        }
    }
}

#[test]
fn lengths_must_be_equal() {
    let (mut to, mut wide) = ([half::bf16::ONE; 3], [1.0; 5]);
    let expected = |expected, got| Err(Error::Length { what: "to", expected, got });
    assert_eq!(narrow(&[0.0; 4], &mut to, best()), expected(4, 3));
    assert_eq!(widen(&[half::f16::ZERO; 4], &mut wide, best()), expected(4, 5));
    assert_eq!((to, wide), ([half::bf16::ONE; 3], [1.0; 5]));
}
