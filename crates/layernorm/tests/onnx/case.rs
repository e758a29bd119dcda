//! The cases of `cases.txt`: what ONNX's models say and hold. `extract.py` describes the format.

/// One node test.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) operator: Operator,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    attributes: Vec<(&'static str, Attribute)>,
}

/// ONNX's operators, apart where a kernel may exist for the one and not for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    LayerNorm,
    RmsNorm,
    BatchNorm,
    BatchNormTraining,
    InstanceNorm,
    GroupNorm,
    L1Norm,
    L2Norm,
    MeanVarianceNorm,
}

impl Operator {
    pub(crate) const ALL: [Self; 9] = [
        Self::LayerNorm,
        Self::RmsNorm,
        Self::BatchNorm,
        Self::BatchNormTraining,
        Self::InstanceNorm,
        Self::GroupNorm,
        Self::L1Norm,
        Self::L2Norm,
        Self::MeanVarianceNorm,
    ];
}

#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

#[derive(Debug)]
enum Attribute {
    Int(i64),
    /// The 32 bits of the model, in f64, because our operators take it so.
    Float(f64),
    Ints(Vec<i64>),
}

/// All cases of the file.
pub(crate) fn cases() -> Vec<Case> {
    include_str!("cases.txt").split("\ncase ").skip(1).map(Case::parse).collect()
}

impl Case {
    fn parse(text: &'static str) -> Self {
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().expect("a head").split(' ').collect();
        let [name, operator, _version] = head[..] else { panic!("{head:?}") };
        // Its operator is known when the attributes are.
        let mut case =
            Self { name, operator: Operator::LayerNorm, inputs: vec![], outputs: vec![], attributes: vec![] };
        for line in lines.filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "attribute" => case.attributes.push((words[1], Attribute::parse(words[2], &words[3..]))),
                "input" => case.inputs.push(Tensor::parse(&words[1..])),
                "output" => case.outputs.push(Tensor::parse(&words[1..])),
                other => panic!("{name}: {other}?"),
            }
        }
        case.operator = match operator {
            "LayerNormalization" => Operator::LayerNorm,
            "RMSNormalization" => Operator::RmsNorm,
            "BatchNormalization" if case.int("training_mode") == 0 => Operator::BatchNorm,
            "BatchNormalization" => Operator::BatchNormTraining,
            "InstanceNormalization" => Operator::InstanceNorm,
            "GroupNormalization" => Operator::GroupNorm,
            "LpNormalization" if case.int("p") == 1 => Operator::L1Norm,
            "LpNormalization" => Operator::L2Norm,
            "MeanVarianceNormalization" => Operator::MeanVarianceNorm,
            other => panic!("{name}: {other}?"),
        };
        // Statistics in f32: what ours are, where the input is f32.
        assert!(case.attribute("stash_type").is_none() || case.int("stash_type") == 1, "{name}: stash_type");
        case
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// An attribute that is a whole number.
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.attribute(name) {
            Some(Attribute::Int(value)) => *value,
            other => panic!("{}: {name} is {other:?}", self.name),
        }
    }

    fn float(&self, name: &str) -> f64 {
        match self.attribute(name) {
            Some(Attribute::Float(value)) => *value,
            other => panic!("{}: {name} is {other:?}", self.name),
        }
    }

    pub(crate) fn eps(&self) -> f64 {
        self.float("epsilon")
    }

    pub(crate) fn momentum(&self) -> f64 {
        self.float("momentum")
    }

    /// The shape of the first input, which is the one to be normalised.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.inputs[0].shape
    }

    /// `axis`, counted from the front.
    pub(crate) fn axis(&self) -> usize {
        self.place_of(self.int("axis"))
    }

    /// `axes`, counted from the front.
    pub(crate) fn axes(&self) -> Vec<usize> {
        match self.attribute("axes") {
            Some(Attribute::Ints(axes)) => axes.iter().map(|axis| self.place_of(*axis)).collect(),
            other => panic!("{}: axes is {other:?}", self.name),
        }
    }

    fn place_of(&self, axis: i64) -> usize {
        let rank = i64::try_from(self.shape().len()).expect("a small number");
        let axis = if axis < 0 { axis + rank } else { axis };
        assert!((0..rank).contains(&axis), "{}: axis {axis} of {rank}", self.name);
        usize::try_from(axis).expect("not negative")
    }

    /// The features of a row where `axis` is the first axis that is normalised: that and all later ones.
    pub(crate) fn features(&self) -> usize {
        self.shape()[self.axis()..].iter().product()
    }

    /// An input in the type of a computation; exact.
    pub(crate) fn input<T: From<f32>>(&self, index: usize) -> Vec<T> {
        self.inputs[index].values.iter().map(|value| T::from(*value)).collect()
    }
}

impl Attribute {
    fn parse(of: &str, words: &[&str]) -> Self {
        let ints = || words.iter().map(|word| word.parse().expect("a whole number")).collect::<Vec<i64>>();
        match of {
            "int" => Self::Int(ints()[0]),
            "ints" => Self::Ints(ints()),
            "float" => Self::Float(float(words[0]).into()),
            other => panic!("an attribute of type {other}"),
        }
    }
}

impl Tensor {
    fn parse(words: &[&'static str]) -> Self {
        let shape: Vec<usize> = words[1].split('x').map(|size| size.parse().expect("a size")).collect();
        let values: Vec<f32> = words[2..].iter().map(|word| float(word)).collect();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{} of {shape:?}", words[0]);
        Self { name: words[0], shape, values }
    }
}

fn float(bits: &str) -> f32 {
    f32::from_bits(u32::from_str_radix(bits, 16).expect("the bits of a float"))
}
