//! Keys that hold several values.

use super::cores::{CoreList, CoreListError};
use super::domain::{Domain, Wrong};
use super::literal::Literal;

/// Values of one domain, in order. Every item that doesn't fit is reported, at its own place.
pub(super) struct List<D>(pub D);

impl<D: Domain> Domain for List<D> {
    type Value = Vec<D::Value>;

    fn read(&self, literal: &Literal) -> Result<Self::Value, Vec<Wrong>> {
        let items = literal.as_list().ok_or_else(|| Wrong::whole(literal))?;
        let (mut values, mut wrong) = (Vec::with_capacity(items.len()), Vec::new());
        for item in &items {
            match self.0.read(&item.literal) {
                Ok(value) => values.push(value),
                Err(found) => {
                    wrong.extend(found.into_iter().map(|one| Wrong { offset: Some(item.offset), ..one }));
                }
            }
        }
        if wrong.is_empty() { Ok(values) } else { Err(wrong) }
    }

    fn write(&self, values: &Self::Value) -> Option<String> {
        let items: Vec<_> = values.iter().filter_map(|value| self.0.write(value)).collect();
        Some(format!("[{}]", items.join(", ")))
    }

    fn allowed(&self) -> String {
        format!("a list of: {}", self.0.allowed())
    }
}

/// Cores: numbers and ranges, such as `[0, 2, "4-7"]`.
pub(super) struct Cores;

impl Domain for Cores {
    type Value = CoreList;

    fn read(&self, literal: &Literal) -> Result<CoreList, Vec<Wrong>> {
        // one text is a list as well, as taskset and cgroups write it: "0,2,4-7"
        if let Literal::Text(text) = literal {
            return text.parse().map_err(|why: CoreListError| Wrong::because(literal, why.to_string()));
        }
        let items = literal.as_list().ok_or_else(|| Wrong::whole(literal))?;
        let (mut cores, mut wrong) = (CoreList::default(), Vec::new());
        for item in &items {
            let text = match &item.literal {
                Literal::Integer(core) => core.to_string(),
                other => other.as_text().unwrap_or_default().to_owned(),
            };
            if let Err(why) = cores.add(&text) {
                wrong.push(Wrong::item(item, Some(why.to_string())));
            }
        }
        if wrong.is_empty() { Ok(cores) } else { Err(wrong) }
    }

    fn write(&self, cores: &CoreList) -> Option<String> {
        let ranges = cores.ranges();
        let items =
            ranges.iter().map(
                |(first, last)| {
                    if first == last { first.to_string() } else { format!("\"{first}-{last}\"") }
                },
            );
        Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
    }

    fn allowed(&self) -> String {
        "a list of core numbers and ranges, such as [1, \"4-7\"], each core once".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::literal::Located;
    use super::super::number::count;
    use super::*;

    fn list(items: Vec<Literal>) -> Literal {
        let located = items.into_iter().enumerate();
        Literal::List(located.map(|(offset, literal)| Located { offset, literal }).collect())
    }

    #[test]
    fn every_wrong_item_is_reported_where_it_stands() {
        let literal = list(vec![Literal::Integer(1), Literal::Integer(-2), Literal::Boolean(true)]);
        let wrong = List(count::<u16>(0..=9, "")).read(&literal).unwrap_err();
        let places: Vec<_> = wrong.iter().map(|one| (one.offset, one.shown.as_str())).collect();
        assert_eq!(places, [(Some(1), "-2"), (Some(2), "true")]);
    }

    #[test]
    fn cores_are_numbers_and_ranges_in_any_form() {
        let expected: CoreList = "0,4-7".parse().unwrap();
        let forms = [
            list(vec![Literal::Integer(0), Literal::Text("4-7".into())]),
            Literal::Text("0,4-7".into()),
            Literal::Bare("0,4-7".into()),
            Literal::Bare("[0, \"4-7\"]".into()),
        ];
        for form in forms {
            assert_eq!(Cores.read(&form), Ok(expected.clone()), "{form:?}");
        }
        assert_eq!(Cores.write(&expected).as_deref(), Some(r#"[0, "4-7"]"#));
    }

    #[test]
    fn a_core_named_twice_is_refused() {
        let literal = list(vec![Literal::Text("0-3".into()), Literal::Integer(2)]);
        assert_eq!(Cores.read(&literal).unwrap_err()[0].offset, Some(1));
    }
}
