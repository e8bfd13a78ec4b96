package routes

// Look compares the kernel's table with what is wanted, once, and changes nothing: for
// those who have no Manager, or whose Manager does not run.
func Look(namespace int, w Wants) ([]Status, []Condition, error) {
	k, err := openKernel(namespace)
	if err != nil {
		return nil, nil, err
	}
	defer k.close()
	m := New(Config{Namespace: namespace, Wants: func() Wants { return w }})
	if _, err := newRound(m, k).run(true); err != nil {
		return nil, nil, err
	}
	return m.Status(), m.Conditions(), nil
}
