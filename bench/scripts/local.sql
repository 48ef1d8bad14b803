\set id random(1, :rows)
SELECT value FROM item WHERE id = :id;
