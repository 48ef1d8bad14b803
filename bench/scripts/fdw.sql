\set id random(1, :rows)
SELECT value FROM item_direct WHERE id = :id;
