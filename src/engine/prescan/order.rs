//! What refers to what between clients: inside the update it must have an order, outside it becomes a dependency.

use super::{Edge, Scan, ScanError, ScanLimits, refuse_duplicates};

/// Where one client stands while its structs are put in order.
struct Progress {
    /// The client's edges that were not passed yet: `next..end` of all edges.
    next: usize,
    end: usize,
    /// It waits for one above it on the stack.
    waits: bool,
}

impl Scan {
    /// Orders the ranges by client; an update lists each once.
    pub(super) fn sort_clients(&mut self) -> Result<(), ScanError> {
        refuse_duplicates(&mut self.clients)?;
        self.ranges.sort_unstable();
        Ok(())
    }

    /// Tells dependencies from references inside the update, and refuses those that run in a circle.
    pub(super) fn settle_edges(&mut self, limits: &ScanLimits) -> Result<(), ScanError> {
        let mut edges = std::mem::take(&mut self.edges);
        edges.retain(|edge| {
            let inside = self.brings(edge.to);
            if !inside {
                self.dependencies.push(edge.to);
            }
            inside
        });
        self.dependencies.sort_unstable();
        self.dependencies.dedup();
        // Of the same client an earlier range may hold what seemed to be outside.
        let mut dependencies = std::mem::take(&mut self.dependencies);
        dependencies.retain(|&id| !self.brings(id));
        self.dependencies = dependencies;
        let ordered = if edges.is_empty() { Ok(()) } else { self.order(&mut edges, limits) };
        self.edges = edges;
        ordered
    }

    /// Passes every edge after what it points to. Each client's structs come in their order, so a client stands at
    /// the first edge that it can't pass yet; one that comes to wait for itself is in a circle.
    fn order(&self, edges: &mut [Edge], limits: &ScanLimits) -> Result<(), ScanError> {
        edges.sort_unstable_by_key(|edge| edge.to.client);
        let linked = edges.chunk_by(|a, b| a.to.client == b.to.client).count();
        if linked > limits.linked_clients_max as usize {
            return Err(ScanError::LinkedClients(limits.linked_clients_max));
        }
        edges.sort_unstable();
        let mut end = 0;
        let mut clients = Vec::with_capacity(self.clients.len());
        for client in &self.clients {
            let next = end;
            end += edges[next..].partition_point(|edge| edge.from.client <= *client);
            clients.push(Progress { next, end, waits: false });
        }
        // Who is to pass all edges up to which clock.
        let mut stack = Vec::new();
        for at in 0..clients.len() {
            stack.push((at, u32::MAX));
            while let Some(&(top, goal)) = stack.last() {
                let Progress { next, end, .. } = clients[top];
                clients[top].waits = false;
                let Some(edge) = edges[next..end].first().filter(|edge| edge.from.clock <= goal) else {
                    stack.pop();
                    continue;
                };
                // Edges point into the update's ranges, so the client is there.
                let target = self.clients.binary_search(&edge.to.client).unwrap_or(top);
                let stands = &clients[target];
                let blocker = edges[stands.next..stands.end].first();
                if blocker.is_none_or(|blocker| blocker.from.clock > edge.to.clock) {
                    clients[top].next += 1;
                } else if stands.waits {
                    let (client, clock) = (edge.from.client, edge.from.clock);
                    return Err(ScanError::Circular { client, clock });
                } else {
                    clients[top].waits = true;
                    stack.push((target, edge.to.clock));
                }
            }
        }
        Ok(())
    }
}
