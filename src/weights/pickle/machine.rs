//! The part of Python's pickle machine that files of tensors need. It builds data and calls nothing:
//! of what a pickle can name, only [`Global`]s are known.
//!
//! Source: CPython `Lib/pickletools.py` for the opcodes; torch `_weights_only_unpickler.py` for
//! which of them tensors need.

use std::collections::HashMap;

use super::cursor::{Cursor, Result, text};

/// Operations that a file may take in all. Each leaves a few dozen bytes behind at most, so this is
/// what bounds the memory of a hostile program; a LoRA of 3000 tensors takes 130 thousand.
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
    fn find(module: &str, name: &str) -> Result<Self> {
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
        let mut found = entries.filter(|(name, _)| matches!(name, Value::Text(text) if *text == key));
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

    /// Runs the program that starts at `at`; returns what it leaves and where it ends.
    pub fn run(&mut self, program: &'a [u8], at: usize) -> Result<(Value<'a>, usize)> {
        let mut machine = Machine {
            graph: self,
            cursor: Cursor::new(program, at),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let value = machine.run()?;
        let end = machine.cursor.position();
        Ok((value, end))
    }

    fn new_items(&mut self, items: Vec<Value<'a>>) -> Value<'a> {
        self.items.push(items);
        Value::Items(self.items.len() - 1)
    }

    fn new_dict(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
        self.dicts.push(entries);
        Value::Dict(self.dicts.len() - 1)
    }

    /// What torch's persistent ids stand for.
    fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>> {
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
    fn reduce(&mut self, global: Global, arguments: Value<'a>) -> Result<Value<'a>> {
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
                self.budget = bytes.and_then(|bytes| self.budget.checked_sub(bytes)).ok_or(
                    "its tensors together have more elements than the file has room for",
                )?;
                self.tensors.push(tensor);
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            _ => Err(wrong()),
        }
    }

    fn spend(&mut self, operations: usize) -> Result<()> {
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

struct Machine<'g, 'a> {
    graph: &'g mut Graph<'a>,
    cursor: Cursor<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
}

impl<'a> Machine<'_, 'a> {
    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            self.graph.spend(1)?;
            let operation = self.cursor.u8()?;
            if operation == b'.' {
                return self.pop();
            }
            self.step(operation)?;
        }
    }

    fn step(&mut self, operation: u8) -> Result<()> {
        let value = match operation {
            // PROTO, FRAME
            0x80 => return self.cursor.u8().map(drop),
            0x95 => return self.cursor.u64().map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' => return self.pop().map(drop),
            b'1' => return self.pop_mark().map(drop),
            b'2' => self.top()?,
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.cursor.array()?).into()),
            b'K' => Value::Int(self.cursor.u8()?.into()),
            b'M' => Value::Int(self.cursor.u16()?.into()),
            b'I' => match self.cursor.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => integer(digits)?,
            },
            b'L' => integer(self.cursor.line()?.trim_end_matches('L'))?,
            0x8a => {
                let length = self.cursor.u8()?.into();
                long(self.cursor.take(length)?)?
            }
            b'G' => Value::Float(f64::from_be_bytes(self.cursor.array()?)),
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; BINSTRING, SHORT_BINSTRING (Python 2)
            b'X' | b'T' => {
                let length = self.cursor.u32()? as usize;
                Value::Text(text(self.cursor.take(length)?)?)
            }
            0x8c | b'U' => {
                let length = self.cursor.u8()?.into();
                Value::Text(text(self.cursor.take(length)?)?)
            }
            0x8d => {
                let length = self.cursor.u64()?;
                Value::Text(text(self.cursor.take(length)?)?)
            }
            // BINBYTES, SHORT_BINBYTES
            b'B' => {
                let length = self.cursor.u32()? as usize;
                self.cursor.take(length)?;
                Value::Bytes
            }
            b'C' => {
                let length = self.cursor.u8()?.into();
                self.cursor.take(length)?;
                Value::Bytes
            }
            b')' | b']' => self.graph.new_items(Vec::new()),
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.graph.new_items(items)
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(operation - 0x84))?;
                self.graph.new_items(items)
            }
            b'}' => self.graph.new_dict(Vec::new()),
            b'd' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.graph.new_dict(entries)
            }
            b'a' => {
                let items = self.pop_many(1)?;
                return self.append(items);
            }
            b'e' => {
                let items = self.pop_mark()?;
                return self.append(items);
            }
            b's' => {
                let items = self.pop_many(2)?;
                return self.set_items(&items);
            }
            b'u' => {
                let items = self.pop_mark()?;
                return self.set_items(&items);
            }
            b'c' => {
                let (module, name) = (self.cursor.line()?, self.cursor.line()?);
                Value::Global(Global::find(module, name)?)
            }
            0x93 => match self.pop_many(2)?.as_slice() {
                [Value::Text(module), Value::Text(name)] => {
                    Value::Global(Global::find(module, name)?)
                }
                _ => return Err("a global whose name is no text".into()),
            },
            b'R' => {
                let arguments = self.pop()?;
                let Value::Global(global) = self.pop()? else {
                    return Err("a call of what is no function".into());
                };
                self.graph.reduce(global, arguments)?
            }
            // A state dictionary's `_metadata` attribute is set this way; nothing here needs it.
            b'b' => {
                self.pop()?;
                return match self.top()? {
                    Value::Dict(_) => Ok(()),
                    _ => Err("BUILD on what is no dictionary".into()),
                };
            }
            b'Q' => {
                let id = self.pop()?;
                self.graph.storage(id)?
            }
            b'h' => self.recall(|cursor| cursor.u8().map(u32::from))?,
            b'j' => self.recall(Cursor::u32)?,
            b'q' => return self.memoize(|cursor| cursor.u8().map(u32::from)),
            b'r' => return self.memoize(Cursor::u32),
            0x94 => {
                let next = self.memo.len() as u32;
                return self.memoize(|_| Ok(next));
            }
            _ => return Err(format!("opcode 0x{operation:02x}, which tensors do not need")),
        };
        self.stack.push(value);
        Ok(())
    }

    /// The height below which the current mark does not let pop.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        self.top()?;
        self.stack.pop().ok_or_else(|| "an empty stack".into())
    }

    fn top(&self) -> Result<Value<'a>> {
        let above = self.stack.len() > self.floor();
        self.stack.last().copied().filter(|_| above).ok_or_else(|| "an empty stack".into())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
        Ok(self.stack.split_off(start.ok_or("an empty stack")?))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        match self.top()? {
            Value::Items(index) => self.graph.items[index].extend(items),
            _ => return Err("APPEND to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Result<()> {
        let entries = pairs(items)?;
        match self.top()? {
            Value::Dict(index) => self.graph.dicts[index].extend(entries),
            _ => return Err("SETITEM on what is no dictionary".into()),
        }
        Ok(())
    }

    fn recall(&mut self, index: impl Fn(&mut Cursor<'a>) -> Result<u32>) -> Result<Value<'a>> {
        let index = index(&mut self.cursor)?;
        self.memo.get(&index).copied().ok_or_else(|| format!("nothing is memorised as {index}"))
    }

    fn memoize(&mut self, index: impl Fn(&mut Cursor<'a>) -> Result<u32>) -> Result<()> {
        let index = index(&mut self.cursor)?;
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }
}

fn pairs<'a>(items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".into());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn integer<'a>(digits: &str) -> Result<Value<'a>> {
    digits.parse().map(Value::Int).map_err(|_| format!("`{digits:.40}` is no integer"))
}

/// Two's complement, little-endian, of as many bytes as it takes.
fn long<'a>(bytes: &[u8]) -> Result<Value<'a>> {
    let mut wide = match bytes.last() {
        Some(last) if last & 0x80 != 0 => [0xff; 16],
        _ => [0; 16],
    };
    let part = wide.get_mut(..bytes.len()).ok_or("an integer of more than 128 bits")?;
    part.copy_from_slice(bytes);
    Ok(Value::Int(i128::from_le_bytes(wide)))
}
