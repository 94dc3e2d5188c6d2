//! How deep an update nests shared types. Read only for updates with many of them.

use super::{Id, Kind, ScanError, ScanLimits, Struct, read_structs};
use crate::protocol::lib0::Reader;

/// An item, and what tells how deep it lies.
struct Node {
    id: Id,
    /// The clock after its last.
    end: u32,
    /// Neighbours lie as deep as it does, its parent one less deep.
    neighbours: [Option<Id>; 2],
    parent: Option<Id>,
    is_type: bool,
    depth: Depth,
}

#[derive(Clone, Copy)]
enum Depth {
    Unknown,
    Known(u32),
}

/// The most shared types within one another, counting from what lies outside of the update. The update was scanned:
/// its references run in no circle.
pub(super) fn depth(update: &[u8], limits: &ScanLimits) -> Result<u32, ScanError> {
    let mut nodes = Vec::new();
    read_structs(&mut Reader::new(update), limits, |next| {
        nodes.extend(node(next));
        Ok(())
    })?;
    nodes.sort_unstable_by_key(|node| node.id);
    let mut deepest = 0;
    let mut stack = Vec::new();
    for at in 0..nodes.len() {
        stack.push(at);
        while let Some(&top) = stack.last() {
            match resolve(&nodes, top) {
                Ok(depth) => {
                    nodes[top].depth = Depth::Known(depth);
                    deepest = deepest.max(depth + u32::from(nodes[top].is_type));
                    stack.pop();
                }
                Err(first) => stack.push(first),
            }
        }
    }
    Ok(deepest)
}

fn node(next: &Struct<'_>) -> Option<Node> {
    let Kind::Item(item) = &next.kind else { return None };
    let neighbours = [item.origin, item.right_origin];
    let depth = Depth::Unknown;
    let end = next.id.clock + next.len;
    Some(Node { id: next.id, end, neighbours, parent: item.parent_item(), is_type: item.is_type, depth })
}

/// How deep a node lies, or the node that must be resolved first.
fn resolve(nodes: &[Node], at: usize) -> Result<u32, usize> {
    let node = &nodes[at];
    if let Depth::Known(depth) = node.depth {
        return Ok(depth);
    }
    let mut depth = 0;
    let references = node.neighbours.iter().map(|id| (*id, 0)).chain([(node.parent, 1)]);
    for (id, deeper) in references {
        let Some(other) = id.and_then(|id| find(nodes, id)) else {
            // None, collected, or outside of the update, which is where counting begins.
            continue;
        };
        match nodes[other].depth {
            Depth::Known(known) => depth = depth.max(known + deeper),
            Depth::Unknown => return Err(other),
        }
    }
    Ok(depth)
}

/// The node that holds an element.
fn find(nodes: &[Node], id: Id) -> Option<usize> {
    let at = nodes.partition_point(|node| node.id <= id).checked_sub(1)?;
    (nodes[at].id.client == id.client && id.clock < nodes[at].end).then_some(at)
}
