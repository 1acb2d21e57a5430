//! What a pickle builds.

use super::cursor::Result;

/// Operations that a file may take in all. Each leaves a few dozen bytes behind at most, so this
/// is what bounds the memory of a hostile program; a LoRA of 3000 tensors takes 130 thousand.
const MAX_OPERATIONS: usize = 1 << 19;

/// Axes of a tensor.
const MAX_RANK: usize = 8;

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    Size,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

impl Global {
    /// By its name in Python.
    pub fn find(module: &str, name: &str) -> Result<Self> {
        let storage = |element| Ok(Self::Storage(element));
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Self::OrderedDict),
            ("torch", "Size") => Ok(Self::Size),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Ok(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Self::RebuildParameter),
            ("torch" | "torch.cuda", "FloatStorage") => storage(Element::F32),
            ("torch" | "torch.cuda", "HalfStorage") => storage(Element::F16),
            ("torch" | "torch.cuda", "BFloat16Storage") => storage(Element::Bf16),
            ("torch" | "torch.cuda", "DoubleStorage") => storage(Element::F64),
            ("torch" | "torch.cuda", "LongStorage") => storage(Element::I64),
            ("torch" | "torch.cuda", "IntStorage") => storage(Element::I32),
            ("torch" | "torch.cuda", "ShortStorage") => storage(Element::I16),
            ("torch" | "torch.cuda", "CharStorage") => storage(Element::I8),
            ("torch" | "torch.cuda", "ByteStorage" | "BoolStorage") => storage(Element::U8),
            _ => Err(format!("it names `{module}.{name}`, which is none of what tensors need")),
        }
    }
}

/// The type of a storage's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    F16,
    Bf16,
    F32,
    F64,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// A value. Containers are indices into a [`Graph`], so that nothing here is recursive, whatever
/// the program ties together.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    /// Kept for the place it takes; tensors have no use for its contents.
    Bytes,
    Global(Global),
    /// A tuple or a list.
    Items(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

/// Bytes that tensors are views of.
#[derive(Debug)]
pub struct Storage<'a> {
    pub key: &'a str,
    pub element: Element,
    /// Elements, of the whole.
    length: usize,
    /// First element and number of elements of a view; only in the old container.
    view: Option<(usize, usize)>,
    /// The whole; empty until the container has been searched.
    pub bytes: &'a [u8],
}

impl<'a> Storage<'a> {
    /// The elements that tensors index into.
    pub fn elements(&self) -> Option<&'a [u8]> {
        let (start, length) = self.view.unwrap_or((0, self.length));
        let size = self.element.size();
        let end = start.checked_add(length)?.checked_mul(size)?;
        self.bytes.get(start.checked_mul(size)?..end)
    }
}

/// A view of a storage.
#[derive(Debug)]
pub struct TensorNode {
    pub storage: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl TensorNode {
    /// Elements, if that many can be counted.
    pub fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))
    }

    /// One past the last element that the view reaches.
    fn reach(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let axes = self.shape.iter().zip(&self.strides);
        let mut last = axes.map(|(size, stride)| (size - 1).checked_mul(*stride));
        last.try_fold(self.offset, |sum, x| sum.checked_add(x?))?.checked_add(1)
    }
}

/// All that a program has built.
#[derive(Debug)]
pub struct Graph<'a> {
    items: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<TensorNode>,
    operations: usize,
    /// Bytes that tensors may still claim: together no more than the file has.
    budget: usize,
}

impl<'a> Graph<'a> {
    /// Of a file of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self {
            items: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
            operations: MAX_OPERATIONS,
            budget: size,
        }
    }

    /// The elements of a tuple or a list.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Items(index) => Some(&self.items[index]),
            _ => None,
        }
    }

    /// The entries of a dictionary.
    pub fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(index) => Some(&self.dicts[index]),
            _ => None,
        }
    }

    /// What a dictionary has under `key`; of several, the last, as in Python.
    pub fn get(&self, value: Value<'a>, key: &str) -> Option<Value<'a>> {
        let entries = self.entries(value)?.iter().rev();
        let mut found =
            entries.filter(|(name, _)| matches!(name, Value::Text(text) if *text == key));
        found.next().map(|(_, value)| *value)
    }

    /// A tensor and its storage.
    pub fn tensor(&self, index: usize) -> (&TensorNode, &Storage<'a>) {
        let tensor = &self.tensors[index];
        (tensor, &self.storages[tensor.storage])
    }

    /// All storages.
    pub fn storages_mut(&mut self) -> impl Iterator<Item = &mut Storage<'a>> {
        self.storages.iter_mut()
    }

    /// Whether every tensor lies within its storage.
    pub fn check(&self) -> Result<()> {
        for tensor in &self.tensors {
            let storage = &self.storages[tensor.storage];
            let bytes = storage.elements().ok_or_else(|| {
                format!("storage `{}` is shorter than its {} elements", storage.key, storage.length)
            })?;
            let elements = bytes.len() / storage.element.size();
            if tensor.reach().is_none_or(|reach| reach > elements) {
                return Err(format!(
                    "a tensor of shape {:?} reaches beyond storage `{}`",
                    tensor.shape, storage.key
                ));
            }
        }
        Ok(())
    }

    /// A tuple or a list.
    pub fn new_items(&mut self, items: Vec<Value<'a>>) -> Value<'a> {
        self.items.push(items);
        Value::Items(self.items.len() - 1)
    }

    /// A dictionary.
    pub fn new_dict(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
        self.dicts.push(entries);
        Value::Dict(self.dicts.len() - 1)
    }

    /// Appends to a list.
    pub fn extend(&mut self, list: Value<'a>, items: Vec<Value<'a>>) -> Result<()> {
        match list {
            Value::Items(index) => self.items[index].extend(items),
            _ => return Err("APPEND to what is no list".into()),
        }
        Ok(())
    }

    /// Sets entries of a dictionary.
    pub fn set(&mut self, dict: Value<'a>, entries: Vec<(Value<'a>, Value<'a>)>) -> Result<()> {
        match dict {
            Value::Dict(index) => self.dicts[index].extend(entries),
            _ => return Err("SETITEM on what is no dictionary".into()),
        }
        Ok(())
    }

    /// What torch's persistent ids stand for.
    pub fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>> {
        let wrong = || "a persistent id that is no storage".to_owned();
        let [Value::Text("storage"), Value::Global(Global::Storage(element)), rest @ ..] =
            self.items(id).ok_or_else(wrong)?
        else {
            return Err(wrong());
        };
        let (element, [Value::Text(key), _, length, view @ ..]) = (*element, rest) else {
            return Err(wrong());
        };
        let (key, length) = (*key, *length);
        let view = match view.first().copied() {
            None | Some(Value::None) => None,
            Some(view) => match *self.items(view).ok_or_else(wrong)? {
                [_, start, length] => Some((size(start)?, size(length)?)),
                _ => return Err(wrong()),
            },
        };
        self.storages.push(Storage { key, element, length: size(length)?, view, bytes: &[] });
        Ok(Value::Storage(self.storages.len() - 1))
    }

    /// Calls a global: builds what it would build.
    pub fn reduce(&mut self, global: Global, arguments: Value<'a>) -> Result<Value<'a>> {
        let wrong = || format!("`{global:?}` with other arguments than torch gives it");
        let arguments = self.items(arguments).ok_or_else(wrong)?;
        match (global, arguments) {
            (Global::OrderedDict, []) => Ok(self.new_dict(Vec::new())),
            (Global::OrderedDict, &[pairs]) => {
                let pairs = self.items(pairs).ok_or_else(wrong)?;
                let pair = |pair: &Value<'a>| match self.items(*pair) {
                    Some(&[key, value]) => Ok((key, value)),
                    _ => Err(wrong()),
                };
                let entries = pairs.iter().map(pair).collect::<Result<Vec<_>>>()?;
                self.spend(entries.len())?;
                Ok(self.new_dict(entries))
            }
            (Global::Size, &[sizes]) => Ok(sizes),
            (Global::RebuildParameter, &[data @ Value::Tensor(_), ..]) => Ok(data),
            (Global::RebuildTensor, &[Value::Storage(storage), offset, shape, strides, ..]) => {
                let sizes = |value| {
                    let values = self.items(value).ok_or_else(wrong)?;
                    if values.len() > MAX_RANK {
                        return Err(format!("a tensor of {} axes", values.len()));
                    }
                    values.iter().map(|value| size(*value)).collect::<Result<Vec<_>>>()
                };
                let (shape, strides) = (sizes(shape)?, sizes(strides)?);
                if shape.len() != strides.len() {
                    return Err(wrong());
                }
                let tensor = TensorNode { storage, offset: size(offset)?, shape, strides };
                let element = self.storages[storage].element.size();
                let bytes = tensor.count().and_then(|count| count.checked_mul(element));
                self.budget = bytes
                    .and_then(|bytes| self.budget.checked_sub(bytes))
                    .ok_or("its tensors together have more elements than the file has room for")?;
                self.tensors.push(tensor);
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            _ => Err(wrong()),
        }
    }

    /// Takes from what a program may do.
    pub fn spend(&mut self, operations: usize) -> Result<()> {
        self.operations = self
            .operations
            .checked_sub(operations)
            .ok_or_else(|| format!("a program of more than {MAX_OPERATIONS} operations"))?;
        Ok(())
    }
}

/// A length, an offset or a stride.
fn size(value: Value<'_>) -> Result<usize> {
    match value {
        Value::Int(value) => {
            usize::try_from(value).map_err(|_| format!("{value} where a length belongs"))
        }
        other => Err(format!("{other:?} where a length belongs")),
    }
}
