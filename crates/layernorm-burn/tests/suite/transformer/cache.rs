//! Piece by piece equals at once; the past does not know the future; company changes nothing but rounding.

use super::*;

fn tokens(batch: usize, count: usize, seed: u64) -> Tensor<2, burn::tensor::Int> {
    let of_30 = |v: &f64| (15.0 * (v + 1.0)).floor();
    let numbers: Vec<f64> = numbers(batch * count, seed).iter().map(of_30).collect();
    Tensor::from_data(TensorData::new(numbers, [batch, count]), &Device::flex())
}

/// The logits of `all`, taken in pieces of these lengths.
fn in_pieces(model: &LanguageModel, all: &Tensor<2, burn::tensor::Int>, pieces: &[usize]) -> Tensor<3> {
    let mut cache = model.transformer.new_cache();
    let logits = pieces.iter().map(|&count| {
        let from = cache.len();
        model.forward_cache(all.clone().slice([0..all.dims()[0], from..from + count]), &mut cache)
    });
    let logits = Tensor::cat(logits.collect(), 1);
    assert_eq!(cache.len(), all.dims()[1], "the cache has seen all tokens");
    logits
}

#[track_caller]
fn expect_close(a: Tensor<3>, b: Tensor<3>, tolerance: f64, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let double = |t: Tensor<3>| vec_of::<f64, 3>(t.cast(DType::F64));
    for (a, b) in double(a).into_iter().zip(double(b)) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}: {a} and {b}");
    }
}

#[test]
fn a_cache_equals_the_full_pass() {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-4)] {
        for (placement, qk) in PLACEMENTS.into_iter().zip([true, false, true, false]) {
            let model = model(placement, qk, dtype);
            let all = tokens(2, 9, 3);
            let full = model.forward(all.clone());
            let cuts: [&[usize]; 5] = [&[9], &[1; 9], &[8, 1], &[3, 4, 2], &[1, 1, 7]];
            for pieces in cuts {
                let what = format!("{placement:?} {dtype:?} {pieces:?}");
                expect_close(in_pieces(&model, &all, pieces), full.clone(), tolerance, &what);
            }
        }
    }
}

#[test]
fn a_long_text_too() {
    let model = model(Placement::Pre, true, DType::F64);
    let all = tokens(1, 150, 4);
    let pieces = [&[100][..], &[1; 50]].concat();
    expect_close(in_pieces(&model, &all, &pieces), model.forward(all), 1e-12, "150 tokens");
}

#[test]
fn with_positions_the_cache_goes_on_counting() {
    let stack = TransformerConfig::new(1, BlockConfig::new(8, 2));
    let config = LanguageModelConfig::new(30, stack).with_positions(Some(6));
    let model = filled(config.init(&Device::flex()), DType::F64);
    let all = tokens(2, 6, 5);
    expect_close(in_pieces(&model, &all, &[4, 1, 1]), model.forward(all), 1e-12, "positions");
}

#[test]
fn a_later_token_changes_no_bit_of_an_earlier_one() {
    for placement in PLACEMENTS {
        let model = model(placement, placement == Placement::Pre, DType::F32);
        for (count, kept) in [(2, 1), (5, 3), (17, 9), (40, 39), (70, 33)] {
            let all = tokens(2, count, 6);
            let other = tokens(2, count - kept, 7);
            let changed = Tensor::cat(vec![all.clone().slice([0..2, 0..kept]), other], 1);
            let logits = [all, changed].map(|tokens| model.forward(tokens));
            let [early, early_changed] = logits.clone().map(|l| bits(l.slice([0..2, 0..kept])));
            assert_eq!(early, early_changed, "{placement:?}, {kept} of {count} tokens are the same");
            let [late, late_changed] = logits.map(|l| bits(l.slice([0..2, kept..count])));
            assert_ne!(late, late_changed, "{placement:?}: the others are not");
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    // Within rounding: matrix products are Burn's. The bits of the norms are tested in bits.rs.
    for placement in PLACEMENTS {
        let model = model(placement, true, DType::F64);
        let all = tokens(5, 8, 8);
        let together = model.forward(all.clone());
        for sample in 0..5 {
            let alone = model.forward(all.clone().slice([sample..sample + 1, 0..8]));
            let in_company = together.clone().slice([sample..sample + 1, 0..8]);
            expect_close(alone, in_company, 1e-12, &format!("{placement:?}, sample {sample}"));
        }
    }
}
