//! What an operator is told besides the numbers: its options, as the command line has them, and how a check varies them.

use super::Operator;
use crate::error::Error;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use layernorm::{Epsilon, HeadNorm, Lp, Rounding};

/// An option of the command line that not every operator has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `--eps`
    Eps,
    /// `--axis`
    Axis,
    /// `--over`
    Over,
    /// `--affine`
    Affine,
    /// `--groups`
    Groups,
    /// `--mode`
    Mode,
    /// `--layout`
    Layout,
    /// `--momentum`
    Momentum,
    /// `--norm`
    Norm,
    /// `--p`
    Power,
    /// `--weight-offset`
    WeightOffset,
    /// `--partial`
    Partial,
    /// `--epsilon`
    Epsilon,
    /// `--rounding`
    Rounding,
}

impl Flag {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eps => "--eps",
            Self::Axis => "--axis",
            Self::Over => "--over",
            Self::Affine => "--affine",
            Self::Groups => "--groups",
            Self::Mode => "--mode",
            Self::Layout => "--layout",
            Self::Momentum => "--momentum",
            Self::Norm => "--norm",
            Self::Power => "--p",
            Self::WeightOffset => "--weight-offset",
            Self::Partial => "--partial",
            Self::Epsilon => "--epsilon",
            Self::Rounding => "--rounding",
        }
    }

    /// What a check sets it to, by turns, for sets of `n` numbers. The others follow from the shape.
    pub fn vary(self, options: &mut Options, n: usize, turn: usize) {
        match self {
            Self::Layout if turn % 2 == 1 => options.order = Order::Nhwc,
            // One number a channel has no variance to learn from.
            Self::Mode if turn % 3 == 2 || n < 2 => options.mode = Mode::Eval,
            Self::Norm => options.norm = HEAD_NORMS[turn % 3].1,
            Self::Power => options.power = POWERS[turn % 2].1,
            Self::WeightOffset if turn % 3 == 1 => options.weight_offset = 1.0,
            Self::Partial if turn % 5 == 2 => options.partial = Some(n.div_ceil(3)),
            Self::Epsilon if turn % 7 == 3 => options.epsilon = Epsilon::Outside,
            Self::Rounding => options.rounding = ROUNDINGS[turn / 2 % 4].1,
            _ => {}
        }
    }
}

/// Whether statistics are the batch's or those of the past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By the batch's statistics, which the running ones move towards
    #[default]
    Train,
    /// By the running statistics
    Eval,
}

/// Where the channels lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Channels before positions
    #[default]
    Nchw,
    /// Channels last
    Nhwc,
}

/// The kernels' choices, by the names that they have here.
const HEAD_NORMS: &[(&str, HeadNorm)] =
    &[("rms", HeadNorm::Rms), ("layer", HeadNorm::Layer), ("l2", HeadNorm::L2)];
const POWERS: &[(&str, Lp)] = &[("2", Lp::Two), ("1", Lp::One)];
const EPSILONS: &[(&str, Epsilon)] = &[("inside", Epsilon::Inside), ("outside", Epsilon::Outside)];
const ROUNDINGS: &[(&str, Rounding)] =
    &[("once", Rounding::Once), ("llama", Rounding::Llama), ("t5", Rounding::T5), ("gemma", Rounding::Gemma)];

fn named<T: Copy + Send + Sync>(values: &'static [(&str, T)]) -> impl TypedValueParser<Value = T> {
    let find =
        |name: String| values.iter().find(|(of, _)| *of == name).map(|(_, value)| *value).ok_or("none");
    PossibleValuesParser::new(values.iter().map(|(name, _)| *name)).try_map(find)
}

/// The options of an operator; each has no use for some of them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Added to the variance, or what a length is at least.
    pub eps: f64,
    /// The first of the axes that are normalised together, the only one, or that of units; a negative one counts from
    /// the end. Where absent, the last, or the first.
    pub axis: Option<i64>,
    /// The axes that are normalised together, where they may be any.
    pub over: Vec<i64>,
    /// The axes that parameters have; those, where absent.
    pub affine: Option<Vec<i64>>,
    /// Into how many groups a sample's channels are divided.
    pub groups: usize,
    /// The batch's statistics, or the running ones.
    pub mode: Mode,
    /// Where the channels lie.
    pub order: Order,
    /// How much of the batch goes into the running statistics.
    pub momentum: f64,
    /// By what heads are measured.
    pub norm: HeadNorm,
    /// Which length.
    pub power: Lp,
    /// Added to each weight.
    pub weight_offset: f64,
    /// The statistics are of the first so many features.
    pub partial: Option<usize>,
    /// Where epsilon stands.
    pub epsilon: Epsilon,
    /// Where halves are rounded.
    pub rounding: Rounding,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            axis: None,
            over: vec![1],
            affine: None,
            groups: 32,
            mode: Mode::Train,
            order: Order::Nchw,
            momentum: 0.1,
            norm: HeadNorm::Rms,
            power: Lp::Two,
            weight_offset: 0.0,
            partial: None,
            epsilon: Epsilon::Inside,
            rounding: Rounding::Once,
        }
    }
}

/// The options as they are asked for.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Added to the variance or mean square under the root; what a length is at least [default: what is usual]
    #[arg(long, allow_hyphen_values = true)]
    eps: Option<f64>,
    /// The first of the axes that are normalised together, to the last; for lp_norm the only one, for weight_norm the axis
    /// of units [default: -1, the last; for weight_norm 0]
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    axis: Option<i64>,
    /// The axes that are normalised together, separated by commas, of layer_norm_axes and rms_norm_axes [default: 1]
    #[arg(long, value_name = "K,..", value_delimiter = ',', allow_hyphen_values = true)]
    over: Option<Vec<i64>>,
    /// The axes that weight and bias have [default: those of --over]
    #[arg(long, value_name = "K,..", value_delimiter = ',', allow_hyphen_values = true)]
    affine: Option<Vec<i64>>,
    /// Groups that the channels are divided into [default: 32]
    #[arg(long, value_name = "G")]
    groups: Option<usize>,
    /// Which statistics batch norm takes [default: train]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Where the channels lie [default: nchw]
    #[arg(long, value_enum)]
    layout: Option<Order>,
    /// How much of the batch goes into the running statistics [default: 0.1]
    #[arg(long, value_name = "M", allow_hyphen_values = true)]
    momentum: Option<f64>,
    /// By what qk_norm measures heads [default: rms]
    #[arg(long, value_parser = named(HEAD_NORMS))]
    norm: Option<HeadNorm>,
    /// Which length lp_norm divides by: the Euclidean one, or the sum of magnitudes [default: 2]
    #[arg(long, value_parser = named(POWERS))]
    p: Option<Lp>,
    /// Added to each weight of rms_norm, where weights are stored as what they differ from 1 by [default: 0]
    #[arg(long, value_name = "W", allow_hyphen_values = true)]
    weight_offset: Option<f64>,
    /// rms_norm takes the mean square of the first so many features [default: of all]
    #[arg(long, value_name = "N")]
    partial: Option<usize>,
    /// Whether the epsilon of rms_norm stands under the root or beside it [default: inside]
    #[arg(long, value_parser = named(EPSILONS))]
    epsilon: Option<Epsilon>,
    /// Where rms_norm rounds halves, as known models do [default: once]
    #[arg(long, value_parser = named(ROUNDINGS))]
    rounding: Option<Rounding>,
}

impl Asked {
    /// What is asked for, and what is usual.
    ///
    /// # Errors
    /// [`Error::Flag`] for an option that the operator has no use for.
    pub fn options(&self, operator: &Operator) -> Result<Options, Error> {
        let Operator { name, flags, eps, .. } = *operator;
        let given = [
            (Flag::Eps, self.eps.is_some()),
            (Flag::Axis, self.axis.is_some()),
            (Flag::Over, self.over.is_some()),
            (Flag::Affine, self.affine.is_some()),
            (Flag::Groups, self.groups.is_some()),
            (Flag::Mode, self.mode.is_some()),
            (Flag::Layout, self.layout.is_some()),
            (Flag::Momentum, self.momentum.is_some()),
            (Flag::Norm, self.norm.is_some()),
            (Flag::Power, self.p.is_some()),
            (Flag::WeightOffset, self.weight_offset.is_some()),
            (Flag::Partial, self.partial.is_some()),
            (Flag::Epsilon, self.epsilon.is_some()),
            (Flag::Rounding, self.rounding.is_some()),
        ];
        if let Some((flag, _)) = given.into_iter().find(|(flag, given)| *given && !flags.contains(flag)) {
            let flags = flags.iter().map(|flag| flag.name()).collect();
            return Err(Error::Flag { operator: name, flag: flag.name(), flags });
        }
        let usual = Options::default();
        Ok(Options {
            eps: self.eps.unwrap_or(eps),
            axis: self.axis,
            over: self.over.clone().unwrap_or(usual.over),
            affine: self.affine.clone(),
            groups: self.groups.unwrap_or(usual.groups),
            mode: self.mode.unwrap_or(usual.mode),
            order: self.layout.unwrap_or(usual.order),
            momentum: self.momentum.unwrap_or(usual.momentum),
            norm: self.norm.unwrap_or(usual.norm),
            power: self.p.unwrap_or(usual.power),
            weight_offset: self.weight_offset.unwrap_or(usual.weight_offset),
            partial: self.partial,
            epsilon: self.epsilon.unwrap_or(usual.epsilon),
            rounding: self.rounding.unwrap_or(usual.rounding),
        })
    }
}
