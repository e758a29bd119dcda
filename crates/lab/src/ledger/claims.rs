//! The list of claims: what has been said about layer normalization, in our words, who said it, and what covers it
//! besides the studies, whose cards name the claims that they judge.

/// Something that has been said.
#[derive(Debug)]
pub struct Entry {
    /// Its name, such as `M1`.
    pub id: &'static str,
    /// What is said.
    pub says: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// Files of tests that cover it, from the repository's root.
    pub tests: &'static [&'static str],
    /// What nothing here covers, and why; empty for a claim that is covered.
    pub open: &'static str,
}

/// Claims of one kind.
#[derive(Debug)]
pub struct Chapter {
    /// Its heading.
    pub title: &'static str,
    /// Its claims.
    pub entries: &'static [Entry],
}

const PAPER: &str = "Ba, Kiros, Hinton 2016";
const FOLKLORE: &str = "folklore of textbooks and blogs";

/// A claim that studies judge.
const fn judged(id: &'static str, source: &'static str, says: &'static str) -> Entry {
    Entry { id, says, source, tests: &[], open: "" }
}

/// A claim that nothing covers.
const fn open(id: &'static str, source: &'static str, says: &'static str, open: &'static str) -> Entry {
    Entry { id, says, source, tests: &[], open }
}

/// All of them.
pub static CHAPTERS: &[Chapter] = &[
    Chapter { title: "The method", entries: METHOD },
    Chapter { title: "Invariance and geometry", entries: GEOMETRY },
    Chapter { title: "Recurrent networks", entries: RECURRENT },
    Chapter { title: "Feed-forward and convolutional networks", entries: FORWARD },
    Chapter { title: "Depth, placement, rates", entries: DEPTH },
    Chapter { title: "Descendants", entries: DESCENDANTS },
    Chapter { title: "What it is not", entries: NOT },
    Chapter { title: "Serving and systems", entries: SERVING },
];

static METHOD: &[Entry] = &[
    judged(
        "M1",
        PAPER,
        "Statistics are taken over the features of one sample, so nothing depends on the batch, and a batch \
         of one works as well as any.",
    ),
    judged("M2", PAPER, "Training and inference compute the same thing, and there is no state to calibrate."),
    judged(
        "M3",
        FOLKLORE,
        "The same input gives the same output on every run, whoever else is in the batch.",
    ),
    judged(
        "M4",
        PAPER,
        "Gain and bias for each unit keep what a layer can express; shared ones keep less, none at all \
         loses useful means and scales.",
    ),
    judged("M5", FOLKLORE, "With gain and bias, layer norm can learn to undo itself."),
    judged(
        "M6",
        FOLKLORE,
        "The cost of a sample does not depend on the batch size, little memory is needed, but memory is \
         used less well than by batch norm.",
    ),
    judged(
        "M7",
        FOLKLORE,
        "Gain 1 and bias 0 are a good start; eps guards against dividing by zero, and bends the invariances.",
    ),
    open(
        "M8",
        PAPER,
        "It belongs before the nonlinearity, and not on the softmax's inputs.",
        "All studies place it so; none compares it with other places in a layer.",
    ),
];

static GEOMETRY: &[Entry] = &[
    judged(
        "G1",
        PAPER,
        "Table 1: which of batch, weight and layer norm is invariant to which scaling and shifting of \
         weights and data.",
    ),
    judged(
        "G2",
        PAPER,
        "Re-scaling one training case changes nothing, nor does re-scaling or shifting the whole weight \
         matrix; re-scaling one weight vector does.",
    ),
    judged("G3", PAPER, "As weights grow, the effective learning rate falls."),
    judged(
        "G4",
        PAPER,
        "Learning the gain depends on the prediction error alone, not on the size of the input.",
    ),
    open(
        "G5",
        "Brody, Alon, Yahav 2023",
        "It is a projection off the vector of ones, then a scaling; attention gains something from each.",
        "Needs trained attention on the paper's own tasks; planned.",
    ),
    judged(
        "G6",
        FOLKLORE,
        "A model can no longer use the size or the common shift of the vector that was normalised.",
    ),
];

static RECURRENT: &[Entry] = &[
    judged(
        "R1",
        PAPER,
        "Without normalization the scale of summed inputs drifts over time steps; with layer norm it \
         doesn't.",
    ),
    judged(
        "R2",
        PAPER,
        "Batch norm's statistics of a time step mean nothing beyond the training length, are noisy late, \
         and fail at batch 1; layer norm needs none.",
    ),
    judged(
        "R3",
        "Cooijmans et al. 2016; Ba, Kiros, Hinton 2016",
        "Recurrent batch norm needs a gain of 0.1; layer norm works with 1, and better so.",
    ),
    open(
        "R4",
        PAPER,
        "Order-embeddings reach their best model in 60% of the time.",
        "Needs its data set, pictures' features and hours of training.",
    ),
    open(
        "R5",
        PAPER,
        "The attentive reader learns faster and better than without, and than with batch norm.",
        "Needs its data set and hours of training.",
    ),
    open(
        "R6",
        PAPER,
        "Skip-thoughts are better on the tasks downstream after the same updates, and better still later.",
        "Needs its data set, and weeks of training in the paper.",
    ),
    open(
        "R7",
        PAPER,
        "DRAW learns twice as fast and ends at 82.09 nats where it ended at 82.36.",
        "Needs the fixed binarised MNIST and days of training.",
    ),
    open(
        "R8",
        PAPER,
        "Handwriting reaches the same likelihood in far fewer updates, at batch 8 and length 700.",
        "Needs its data set and days of training.",
    ),
    Entry {
        id: "R9",
        says: "It suits sequences of any length, learning online at batch 1, and reinforcement learning.",
        source: FOLKLORE,
        tests: &["crates/layernorm-burn/tests/suite/recurrent.rs"],
        open: "The tests cover sequences of different lengths, batches of one and streams; nothing learns online or by \
               reinforcement.",
    },
];

static FORWARD: &[Entry] = &[
    judged(
        "C1",
        PAPER,
        "On MNIST it is robust to the batch size where batch norm is not, and converges faster.",
    ),
    judged(
        "C2",
        PAPER,
        "In convolutional networks it is better than nothing and worse than batch norm, because units near \
         the border have other statistics.",
    ),
    judged(
        "C3",
        FOLKLORE,
        "The right axes depend on the structure of the data: a choice of what one statistic should be taken \
         over, not a ranking by age.",
    ),
    judged(
        "C4",
        FOLKLORE,
        "Group norm is for vision with small batches; instance norm, which removes a picture's own \
         contrast, for style.",
    ),
];

static DEPTH: &[Entry] = &[
    judged(
        "D1",
        FOLKLORE,
        "Without it the scale of activations drifts over layers, forward and backward; with it, it doesn't.",
    ),
    judged(
        "D2",
        FOLKLORE,
        "Higher learning rates are stable, the usable window is wider, and initialization matters less, for \
         SGD and Adam.",
    ),
    judged("D3", FOLKLORE, "It works together with residual connections: both give more than either alone."),
    judged(
        "D4",
        "Xiong et al. 2020",
        "Post-norm needs warm-up and pre-norm doesn't: swap two lines and it trains.",
    ),
    open(
        "D5",
        "Peri-LN, DeepNorm, NormFormer, Admin, Sub-LN, ReZero",
        "Each placement or scaling repairs something; the residual stream of pre-norm grows during training.",
        "Of these only Peri-LN's placement is built, and compared under D4; the others are planned.",
    ),
    judged("D6", FOLKLORE, "It interacts with the schedule of the learning rate and with weight decay."),
    open(
        "D7",
        FOLKLORE,
        "The logits of attention drift too: hence norms on queries and keys, other scales, and caps.",
        "No study of attention's logits yet.",
    ),
];

static DESCENDANTS: &[Entry] = &[
    judged("E1", "Zhang, Sennrich 2019", "RMS norm, without the mean, is as good in 7 to 64% less time."),
    open(
        "E2",
        "Gupta et al. 2024",
        "States of trained models are almost orthogonal to the vector of ones, so the mean costs little to \
         drop.",
        "Needs trained language models.",
    ),
    open(
        "E3",
        "Nguyen, Salazar 2019",
        "Scale norm: one learnt length is enough.",
        "The operator is there; no study trains with it yet.",
    ),
    open(
        "E4",
        "Peebles, Xie 2023",
        "Adaptive layer norm takes gain and bias from a condition, and with a zero start the block begins \
         as the identity.",
        "The readable reference has the operator; no study trains with it yet.",
    ),
    open("E5", FOLKLORE, "Norms may be specific to a condition, a modality or an expert.", "No study yet."),
    open(
        "E6",
        "NFNet, Fixup, muP, Path-SGD, weight norm",
        "One gets far without normalization.",
        "Weight norm's invariances are under G1; the others are not built.",
    ),
    open(
        "E7",
        "the models' papers and code",
        "Which norm the Transformer, BERT, GPT, ViT, T5, LLaMA and DiT use, where, with which eps and bias.",
        "A fact to look up, not to measure; recipes by name are planned.",
    ),
];

static NOT: &[Entry] = &[
    judged(
        "N1",
        FOLKLORE,
        "It is no regulariser by design: batch norm's noise regularises, layer norm doesn't, and dropout, \
         weight decay, augmentation and label smoothing are still needed.",
    ),
    judged("N2", FOLKLORE, "It does not replace initialization."),
    judged("N3", FOLKLORE, "It should not be put blindly into any architecture."),
    judged("N4", FOLKLORE, "Mixing batch and layer norm without a reason goes wrong."),
    open(
        "N5",
        FOLKLORE,
        "Alone it does not make very deep transformers stable.",
        "Needs transformers of hundreds of layers, and so a larger machine.",
    ),
    judged("N6", PAPER, "It slows an update down only a little."),
];

static SERVING: &[Entry] = &[
    judged("S1", FOLKLORE, "One user's answer does not change because of other users' requests."),
    Entry {
        id: "S2",
        says: "Decoding with a cache equals the full pass, at any length, beyond the training length too.",
        source: FOLKLORE,
        tests: &["crates/layernorm-burn/tests/suite/transformer/cache.rs"],
        open: "",
    },
    Entry {
        id: "S3",
        says: "In mixed precision the statistics must be f32.",
        source: FOLKLORE,
        tests: &["crates/layernorm-burn/tests/suite/types.rs"],
        open: "",
    },
    open(
        "S4",
        FOLKLORE,
        "Training on several devices needs no exchange for layer norm; batch norm needs one.",
        "That rows don't depend on each other is M1; nothing here trains on several devices yet.",
    ),
    judged(
        "S5",
        FOLKLORE,
        "A new method should be asked: does training differ from inference, does the batch matter, is there \
         hidden state?",
    ),
];

/// Claims one by one.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    CHAPTERS.iter().flat_map(|chapter| chapter.entries)
}
