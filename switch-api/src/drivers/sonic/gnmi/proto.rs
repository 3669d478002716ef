//! The messages of gNMI 0.10 (openconfig/gnmi, proto/gnmi/gnmi.proto) that are used here, with their field numbers. Written as
//! derived structs so that a build needs no protoc; what is left out is skipped on reading, as protobuf has it.

use std::collections::HashMap;

/// gRPC paths of the calls.
pub const CAPABILITIES: &str = "/gnmi.gNMI/Capabilities";
pub const GET: &str = "/gnmi.gNMI/Get";
pub const SET: &str = "/gnmi.gNMI/Set";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Path {
    #[prost(string, tag = "2")]
    pub origin: String,
    #[prost(message, repeated, tag = "3")]
    pub elem: Vec<PathElem>,
    #[prost(string, tag = "4")]
    pub target: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PathElem {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(map = "string, string", tag = "2")]
    pub key: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TypedValue {
    #[prost(oneof = "Typed", tags = "1, 2, 3, 4, 10, 11, 12")]
    pub value: Option<Typed>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Typed {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "2")]
    Int(i64),
    #[prost(uint64, tag = "3")]
    Uint(u64),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(bytes, tag = "10")]
    Json(Vec<u8>),
    #[prost(bytes, tag = "11")]
    JsonIetf(Vec<u8>),
    #[prost(string, tag = "12")]
    Ascii(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    #[prost(message, optional, tag = "1")]
    pub path: Option<Path>,
    #[prost(message, optional, tag = "3")]
    pub val: Option<TypedValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Notification {
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub prefix: Option<Path>,
    #[prost(message, repeated, tag = "4")]
    pub update: Vec<Update>,
    #[prost(message, repeated, tag = "5")]
    pub delete: Vec<Path>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Encoding {
    Json = 0,
    Bytes = 1,
    Proto = 2,
    Ascii = 3,
    JsonIetf = 4,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelData {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub organization: String,
    #[prost(string, tag = "3")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CapabilityRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CapabilityResponse {
    #[prost(message, repeated, tag = "1")]
    pub supported_models: Vec<ModelData>,
    #[prost(enumeration = "Encoding", repeated, tag = "2")]
    pub supported_encodings: Vec<i32>,
    #[prost(string, tag = "3")]
    pub gnmi_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetRequest {
    #[prost(message, optional, tag = "1")]
    pub prefix: Option<Path>,
    #[prost(message, repeated, tag = "2")]
    pub path: Vec<Path>,
    /// ALL is 0; SONiC knows no other.
    #[prost(int32, tag = "3")]
    pub data_type: i32,
    #[prost(enumeration = "Encoding", tag = "5")]
    pub encoding: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetResponse {
    #[prost(message, repeated, tag = "1")]
    pub notification: Vec<Notification>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SetRequest {
    #[prost(message, optional, tag = "1")]
    pub prefix: Option<Path>,
    #[prost(message, repeated, tag = "2")]
    pub delete: Vec<Path>,
    #[prost(message, repeated, tag = "3")]
    pub replace: Vec<Update>,
    #[prost(message, repeated, tag = "4")]
    pub update: Vec<Update>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SetResponse {
    #[prost(message, optional, tag = "1")]
    pub prefix: Option<Path>,
    #[prost(message, repeated, tag = "2")]
    pub response: Vec<UpdateResult>,
    #[prost(int64, tag = "4")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateResult {
    #[prost(message, optional, tag = "2")]
    pub path: Option<Path>,
    /// 1 delete, 2 replace, 3 update.
    #[prost(int32, tag = "4")]
    pub op: i32,
}

/// A path of plain elements.
pub fn path<'a>(origin: &str, names: impl IntoIterator<Item = &'a str>) -> Path {
    let elem = names.into_iter().map(|name| PathElem { name: name.to_owned(), key: HashMap::new() });
    Path { origin: origin.to_owned(), elem: elem.collect(), target: String::new() }
}
