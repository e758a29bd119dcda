//! The list of cases.

use crate::data::{Random, input};
use crate::{Affine, Case, Data, Float, Mode, Number, Operator, Parameters, Stream};
use layernorm::{Activation, Convention, Epsilon, HeadNorm, Layout, Rounding, RunningStats, ScaleIs};

/// Rows of features: few and many, and a number of them on either side of a vector, of 32 lanes, of a block of 512 (in f64, of
/// 256), and of the chunks of eight rows that gradients are summed in.
const ROWS: &[&[usize]] = &[
    &[1, 1],
    &[9, 1],
    &[5, 7],
    &[8, 31],
    &[17, 32],
    &[3, 5, 33],
    &[65, 64],
    &[7, 255],
    &[16, 257],
    &[33, 512],
    &[10, 513],
    &[2, 3, 1025],
    &[2, 4099],
];

/// Enough work for several threads.
const LARGE: &[usize] = &[1050, 1000];

/// Tokens, heads and numbers of a head.
const HEADS: &[&[usize]] = &[&[1, 1, 1], &[3, 2, 8], &[9, 4, 32], &[17, 3, 65], &[64, 8, 64]];

/// Samples, channels, positions and groups.
const IMAGES: &[([usize; 3], usize)] = &[
    ([1, 2, 2], 1),
    ([3, 4, 1], 2),
    ([2, 6, 7], 3),
    ([9, 8, 16], 4),
    ([5, 32, 33], 8),
    ([2, 3, 1025], 3),
    ([17, 16, 64], 16),
    ([4, 70, 121], 7),
];

/// Samples, positions and features.
const SAMPLES: &[&[usize]] =
    &[&[1, 1, 1], &[2, 3, 7], &[5, 9, 32], &[3, 17, 65], &[4, 8, 513], &[16, 33, 64]];

/// Directions, of which the first or the second axis is that of units.
const DIRECTIONS: &[&[usize]] = &[&[1, 1], &[8, 3, 5], &[33, 65], &[16, 8, 3, 3], &[9, 513]];

const RMS: Operator = Operator::RmsNorm {
    weight_offset: 0.0,
    partial: false,
    epsilon: Epsilon::Inside,
    rounding: Rounding::Once,
};

/// All cases of a type, made one at a time.
pub fn cases<E: Number>() -> impl Iterator<Item = Case<E>> {
    let plans: Vec<_> = [rows(), heads(), images(), samples(), weights()].concat();
    plans.into_iter().flat_map(|(operator, shape)| {
        kinds::<E>(operator, shape.iter().product()).map(move |kind| make(operator, &shape, kind))
    })
}

type Plan = (Operator, Vec<usize>);

/// Each of the operators, of each of the shapes.
fn each(operators: &[Operator], shapes: &[&[usize]]) -> Vec<Plan> {
    operators.iter().flat_map(|operator| shapes.iter().map(|shape| (*operator, shape.to_vec()))).collect()
}

fn rows() -> Vec<Plan> {
    let Operator::RmsNorm { weight_offset, partial, epsilon, rounding } = RMS else { return Vec::new() };
    let options = [
        Operator::RmsNorm { weight_offset: 1.0, partial, epsilon, rounding },
        Operator::RmsNorm { weight_offset: 1.0, partial, epsilon, rounding: Rounding::Gemma },
        Operator::RmsNorm { weight_offset, partial: true, epsilon, rounding },
        Operator::RmsNorm { weight_offset, partial, epsilon: Epsilon::Outside, rounding },
        Operator::RmsNorm { weight_offset, partial, epsilon, rounding: Rounding::Llama },
        Operator::RmsNorm { weight_offset, partial, epsilon, rounding: Rounding::T5 },
    ];
    let plain = [
        Operator::LayerNorm,
        RMS,
        Operator::ScaleNorm,
        Operator::L2Norm,
        Operator::AddLayerNorm,
        Operator::AddRmsNorm,
    ];
    [each(&plain, ROWS), each(&options, ROWS), each(&[Operator::LayerNorm, RMS], &[LARGE])].concat()
}

fn heads() -> Vec<Plan> {
    let norms = [HeadNorm::Rms, HeadNorm::Layer, HeadNorm::L2];
    let all = norms.map(|norm| Operator::QkNorm { norm, by_head: false });
    let by_head = norms.map(|norm| Operator::QkNorm { norm, by_head: true });
    // Of one head alone, its weights are those of all.
    [each(&all, HEADS), each(&by_head, &HEADS[1..])].concat()
}

fn images() -> Vec<Plan> {
    let mut plans = Vec::new();
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        for ([samples, channels, positions], groups) in IMAGES {
            let group = |activation| Operator::GroupNorm { groups: *groups, layout, activation };
            let batch = |mode| Operator::BatchNorm { layout, mode };
            let shape = match layout {
                Layout::ChannelsFirst => [*samples, *channels, *positions],
                Layout::ChannelsLast => [*samples, *positions, *channels],
            };
            let by_sample =
                [group(Activation::None), group(Activation::Silu), Operator::InstanceNorm { layout }];
            let of_batch = [
                batch(Mode::Train(Convention::PYTORCH)),
                batch(Mode::Train(Convention::PyTorch { momentum: None })),
                batch(Mode::Train(Convention::KERAS)),
                batch(Mode::Frozen),
            ];
            plans.extend(each(&by_sample, &[&shape]));
            // A matrix lies both ways; all frameworks take its sums in the order of channels last.
            if *positions > 1 || layout == Layout::ChannelsLast {
                plans.extend(each(&of_batch, &[&shape]));
            }
        }
    }
    plans
}

fn samples() -> Vec<Plan> {
    let scales = [ScaleIs::AboveOne, ScaleIs::Whole];
    [each(&scales.map(Operator::AdaLayerNorm), SAMPLES), each(&scales.map(Operator::AdaRmsNorm), SAMPLES)]
        .concat()
}

fn weights() -> Vec<Plan> {
    each(&[Operator::WeightNorm { axis: 0 }, Operator::WeightNorm { axis: 1 }], DIRECTIONS)
}

/// What a case has beside operator and shape.
#[derive(Debug, Clone, Copy)]
struct Kind {
    data: Data,
    /// Of the type that sums have?
    wide: bool,
    weight: Count,
    bias: Count,
}

/// How many numbers a parameter has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    None,
    One,
    All,
}

/// From so many numbers on, a case has both parameters; from so many, plain data.
const LONG: usize = 4096;
const VERY_LONG: usize = 100_000;

/// The kinds of cases of an operator: parameters that are there or not with plain data, and the data that break with both.
fn kinds<E: Number>(operator: Operator, len: usize) -> impl Iterator<Item = Kind> {
    use Count::{All, None, One};
    let counts: &[[Count; 2]] = match operator {
        Operator::ScaleNorm => &[[One, None]],
        Operator::L2Norm => &[[None, None]],
        Operator::QkNorm { norm: HeadNorm::L2, by_head: false } => &[[None, None], [All, None]],
        Operator::WeightNorm { .. } => &[[All, None]],
        Operator::QkNorm { by_head: true, .. } | Operator::AdaLayerNorm(_) | Operator::AdaRmsNorm(_) => {
            &[[All, None], [All, All]]
        }
        _ => &[[None, None], [All, None], [None, All], [One, One], [All, All]],
    };
    let both = counts.len() - 1;
    let counts = &counts[if len < LONG { 0 } else { both }..];
    let breaking = if len < VERY_LONG { &[Data::Breaking, Data::NotFinite][..] } else { &[] };
    let plain = counts.iter().map(|counts| (Data::Plain, *counts));
    let breaking = breaking.iter().map(|data| (*data, counts[counts.len() - 1]));
    let types = if E::IS_HALF { &[false, true][..] } else { &[false] };
    plain.chain(breaking).flat_map(|(data, [weight, bias])| {
        types.iter().map(move |wide| Kind { data, wide: *wide, weight, bias })
    })
}

/// Numbers of a weight that has one for each unit.
fn units(operator: Operator, shape: &[usize]) -> usize {
    let features = shape[shape.len() - 1];
    match operator {
        Operator::QkNorm { by_head: true, .. } => shape[1] * features,
        Operator::GroupNorm { layout, .. }
        | Operator::InstanceNorm { layout }
        | Operator::BatchNorm { layout, .. } => shape[channel_axis(layout)],
        Operator::AdaLayerNorm(_) | Operator::AdaRmsNorm(_) => shape[0] * features,
        Operator::WeightNorm { axis } => shape[axis],
        _ => features,
    }
}

fn channel_axis(layout: Layout) -> usize {
    match layout {
        Layout::ChannelsFirst => 1,
        Layout::ChannelsLast => 2,
    }
}

/// The row (group, channel, unit) of a number.
fn row(operator: Operator, shape: &[usize], i: usize) -> usize {
    let at = |axis: usize| i / shape[axis + 1..].iter().product::<usize>() % shape[axis];
    match operator {
        Operator::GroupNorm { groups, layout, .. } => {
            let channels = shape[channel_axis(layout)];
            at(0) * groups + at(channel_axis(layout)) / (channels / groups)
        }
        Operator::InstanceNorm { layout } => at(0) * shape[channel_axis(layout)] + at(channel_axis(layout)),
        Operator::BatchNorm { layout, .. } => at(channel_axis(layout)),
        Operator::WeightNorm { axis } => at(axis),
        _ => i / shape[shape.len() - 1],
    }
}

fn make<E: Number>(operator: Operator, shape: &[usize], kind: Kind) -> Case<E> {
    let (len, Kind { data, wide, .. }) = (shape.iter().product(), kind);
    let random = |tensor| Random::new(shape, tensor);
    let parameters = if wide {
        Parameters::Wide(affine(kind, units(operator, shape), &random))
    } else {
        Parameters::Own(affine(kind, units(operator, shape), &random))
    };
    let adds = matches!(operator, Operator::AddLayerNorm | Operator::AddRmsNorm);
    let stream = adds.then(|| Stream { residual: random(4).normals(len), dsum: random(5).normals(len) });
    let running =
        matches!(operator, Operator::BatchNorm { .. }).then(|| running(units(operator, shape), random(6)));
    // From the usual one to none.
    let eps = match data {
        Data::Plain => 1e-5,
        Data::Breaking => 1e-12,
        Data::NotFinite => 0.0,
    };
    let x = input(data, len, &mut random(0), |i| row(operator, shape, i));
    let dy = random(1).normals(len);
    Case { operator, shape: shape.to_vec(), eps, data, x, dy, parameters, stream, running }
}

fn affine<P: Float>(kind: Kind, units: usize, random: &impl Fn(u64) -> Random) -> Affine<P> {
    let numbers = |count, tensor| match count {
        Count::None => None,
        Count::One => Some(random(tensor).normals(1)),
        Count::All => Some(random(tensor).normals(units)),
    };
    Affine { weight: numbers(kind.weight, 2), bias: numbers(kind.bias, 3) }
}

/// Some statistics; in every fifth channel a variance of 0.
fn running<T: Float + layernorm::Real>(channels: usize, mut random: Random) -> RunningStats<T> {
    let mean = random.normals(channels);
    let var = (0..channels).map(|channel| if channel % 5 == 4 { 0.0 } else { random.normal().abs() });
    RunningStats { mean, var: var.map(T::nearest).collect(), updates: 3 }
}
